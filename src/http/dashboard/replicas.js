// The replicas that serve together: who owns what, and whose renewals are missing.

import { byId, count, el, foreign, keep, mark, say } from "./dom.js";

/** The state of a replica: a name for the style, and a text. */
function standing(replica, cluster) {
  if (replica.draining) return ["out", "Stopping"];
  if (replica.session === cluster.session && cluster.lease_left_ms === null) return ["down", "Lease is over"];
  if (replica.session !== cluster.session && replica.silent_ms * 2 >= cluster.lease_ms) return ["warn", "Silent"];
  return ["good", "Serving"];
}

function renewed(replica, cluster) {
  const seconds = (ms) => `${(ms / 1000).toFixed(1)}\u00a0s`;
  if (replica.session !== cluster.session) return `renewed ${seconds(replica.silent_ms)} ago`;
  return cluster.lease_left_ms === null ? "may not act" : `may act for ${seconds(cluster.lease_left_ms)}`;
}

function make() {
  return el("tr", { className: "replica" }, el("th", { scope: "row" }), el("td", {},
    el("p", { className: "badge" }, el("span", { className: "mark", "aria-hidden": "true" }), el("span", { className: "words" }))),
  el("td"), el("td"), el("td", { className: "wide" }));
}

function update(row, replica, cluster) {
  const [name, , owns, lease, version] = row.children;
  const [sign, words] = standing(replica, cluster);
  mark(row, "state", sign);
  const shown = replica.session === cluster.session ? `${replica.name} (this one)` : replica.name;
  if (name.textContent !== shown) name.replaceChildren(foreign(shown));
  say(row.querySelector(".words"), words);
  say(owns, `${replica.owns} of ${replica.lists}`);
  say(lease, renewed(replica, cluster));
  say(version, replica.version);
}

/** Shows the replicas, and who owns the instance that is chosen. */
export function showReplicas(cluster, chosen) {
  byId("replicas").hidden = !cluster;
  if (!cluster) return;
  keep(byId("replica-rows"), cluster.replicas, (replica) => replica.session, make, (row, replica) => update(row, replica, cluster));
  const owner = cluster.owners.find((one) => one.instance === chosen);
  const whose = owner ? `${owner.replica ?? "Nobody"} owns ${chosen}. ` : "";
  const unowned = cluster.owners.filter((one) => one.replica === null).length;
  const missing = unowned ? `, ${unowned} of them owned by nobody` : "";
  say(byId("replica-words"), `${whose}${count(cluster.owners.length, "instance")} in all${missing}; ${count(cluster.owner_changes, "change")} of owner seen. Cached replies and subscribers are those of this replica.`);
}

export function forgetReplicas() {
  byId("replicas").hidden = true;
  byId("replica-rows").replaceChildren();
}
