// The page's only loop: reads the status of the bridge and shows it, while the tab is visible.

import { ask, keepToken, token } from "./api.js";
import { forgetAttention, showAttention, showFigures } from "./attention.js";
import { forgetBroadcasts, listen, silence } from "./broadcasts.js";
import { forgetBudget, showBudget } from "./budget.js";
import { announce, byId, duration, el, keep, mark, say, time } from "./dom.js";
import { prepareFindings, wrong } from "./findings.js";
import { forgetFound, prepareFind, searchIn } from "./find.js";
import { agePayments, forgetPayments, showPayments, unsettled } from "./payments.js";
import { forgetRates, showRates } from "./rates.js";
import { forgetReplicas, showReplicas } from "./replicas.js";
import { prepareSettle } from "./settle.js";
import { forgetShards, prepareCordon, showShards } from "./shards.js";
import { forgetEntered, prepareSignIn } from "./sign_in.js";
import { forgetWall, showWall } from "./wall.js";

const EVERY_MS = 1000;
const LONGEST_PAUSE_MS = 15_000;
/** Interval for a token without `operate`, whose data changes seldom. */
const LIMITED_EVERY_MS = 5000;
const TITLE = document.title;

let timer = null;
let round = 0;
let failures = 0;
let asking = false;
let lastGood = null;
let chosen = null;

function pulse(state, words) {
  mark(byId("pulse"), "state", state);
  say(byId("pulse").querySelector(".words"), words);
}

/** The tab's title, with the number of things that need attention. */
function title(sign) {
  const wanted = sign ? `(${sign}) ${TITLE}` : TITLE;
  if (document.title !== wanted) document.title = wanted;
}

function showSignIn(problem = "") {
  forget();
  byId("board").hidden = true;
  byId("session").hidden = true;
  byId("sign-in").hidden = false;
  byId("sign-in-problem").textContent = problem;
  pulse("waiting", "Not signed in");
  byId("token").focus();
}

function forget() {
  clearTimeout(timer);
  round += 1;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  for (const part of [forgetAttention, forgetBroadcasts, forgetBudget, forgetFound, forgetPayments, forgetRates, forgetReplicas, forgetShards, forgetWall]) part();
  title(0);
  [failures, lastGood, chosen, asking] = [0, null, null, false];
  for (const id of ["as-of", "program"]) say(byId(id), "");
}

function showBoard(limited) {
  const first = byId("board").hidden;
  if (first) forgetEntered();
  byId("sign-in").hidden = true;
  byId("board").hidden = false;
  byId("session").hidden = false;
  byId("sign-out").hidden = token() === null;
  byId("limited").hidden = !limited;
  for (const id of ["attention", "figures", "shards", "budget"]) byId(id).hidden = limited;
  if (limited) forgetReplicas();
  return first;
}

function choose(names) {
  if (!names.includes(chosen)) chosen = names[0] ?? null;
  byId("instance-choice").hidden = names.length < 2;
  keep(byId("instance"), names, (name) => name, (name) => el("option", { value: name }, name), () => {});
  if (byId("instance").value !== chosen) byId("instance").value = chosen ?? "";
  listen(chosen);
}

async function showStatus(status, mine) {
  const first = showBoard(false);
  const names = status.instances.map((instance) => instance.instance);
  choose(names);
  say(byId("program"), `Version ${status.version}, running for ${duration(status.uptime_seconds)}`);
  const instance = status.instances.find((one) => one.instance === chosen);
  if (instance) {
    showShards(instance, soon);
    showBudget(instance);
  }
  showAttention(status);
  showReplicas(status.cluster, chosen);
  showFigures(status);
  showRates(status);
  showWall(status, unsettled());
  searchIn(names, true);
  title(wrong());
  pulse(status.state === "serving" ? "live" : "away", status.state === "serving" ? "Live" : "Stopping");
  if (first) announce("Signed in. The page updates by itself.");
  await showPayments(status.payments, names, true, status.whole);
  if (mine === round) say(byId("as-of"), `As of ${time(Date.now())}`);
  return EVERY_MS;
}

async function showLimited(mine) {
  const { instances } = await ask("v1/instances");
  if (mine !== round) return null;
  showBoard(true);
  choose(instances);
  showWall(null, []);
  searchIn(instances, false);
  pulse("live", "Signed in, limited");
  let payments = "its own payments";
  try {
    await showPayments(null, instances, false);
  } catch (fault) {
    if (fault.status !== 403) throw fault;
    payments = "no payments (it lacks the scope pay)";
  }
  say(byId("limited-words"), `Shards, budget and settling need a token with the scope operate. This token may use ${instances.join(", ") || "no instance"}; the page shows ${payments}, and broadcasts if its scopes allow them.`);
  return LIMITED_EVERY_MS;
}

async function look() {
  const mine = round;
  try {
    const status = await ask("v1/bridge");
    return mine === round ? await showStatus(status, mine) : null;
  } catch (fault) {
    if (fault.status === 403 && token() !== null) return showLimited(mine);
    throw fault;
  }
}

function failed(fault) {
  if (fault.status === 401) {
    const known = token() !== null;
    keepToken(null);
    showSignIn(known ? "The bridge does not know this token." : "");
    return null;
  }
  if (byId("board").hidden && fault.status === 429) {
    keepToken(null);
    showSignIn(`Too many wrong tokens came from this address, so this one was not checked. Try again in ${fault.retryAfter ?? 30} seconds.`);
    return null;
  }
  if (byId("board").hidden && fault.status === 403) {
    showSignIn(fault.message);
    return null;
  }
  failures += 1;
  const since = lastGood ? ` The data is as of ${time(lastGood)}.` : "";
  pulse("away", `${fault.message}${since}`);
  if (failures === 1) announce(`${fault.message}${since}`);
  title("!");
  document.body.classList.add("stale");
  const pause = Math.min(LONGEST_PAUSE_MS, EVERY_MS * 2 ** Math.min(failures - 1, 5)) * (0.8 + Math.random() * 0.4);
  return Math.max(pause, (fault.retryAfter ?? 0) * 1000);
}

async function tick() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  const mine = round;
  let next;
  try {
    next = await look();
    if (mine === round) {
      if (failures > 0) announce("The bridge answers again.");
      [failures, lastGood] = [0, Date.now()];
      document.body.classList.remove("stale");
    }
  } catch (fault) {
    if (!Number.isInteger(fault?.status)) console.error(fault);
    next = mine === round ? failed(fault) : null;
  }
  if (mine !== round) return;
  asking = false;
  if (next !== null) timer = setTimeout(tick, next);
}

function soon() {
  agePayments();
  clearTimeout(timer);
  timer = setTimeout(tick, 50);
}

function prepare() {
  prepareSignIn((given) => {
    keepToken(given);
    pulse("waiting", "Signing in");
    tick();
  });
  byId("sign-out").addEventListener("click", () => {
    keepToken(null);
    showSignIn();
    announce("Signed out.");
  });
  byId("instance").addEventListener("change", (event) => {
    chosen = event.target.value;
    soon();
  });
  byId("recent").addEventListener("toggle", soon);
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(timer);
      silence();
    } else tick();
  });
  window.addEventListener("hashchange", soon);
  prepareFind();
  prepareFindings();
  prepareSettle(soon);
  prepareCordon();
}

prepare();
tick();
