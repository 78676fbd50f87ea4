// A real issuer for the tests: oidc-provider, with the client credentials grant and JWT access tokens (RFC 9068).
//
// Prints its address once it listens. `POST /rotate` replaces its keys, as an operator would.

import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const ALGORITHMS = { RS256: ["rsa", { modulusLength: 2048 }], ES256: ["ec", { namedCurve: "P-256" }], EdDSA: ["ed25519", {}] };
const RESOURCE = "urn:concertpos-bridge";

function key(alg) {
  const [type, options] = ALGORITHMS[alg];
  const { privateKey } = generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: "jwk" }), alg, use: "sig", kid: randomUUID() };
}

const server = createServer();
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

function provider() {
  return new Provider(issuer, {
    jwks: { keys: Object.keys(ALGORITHMS).map(key) },
    clients: Object.keys(ALGORITHMS).map((alg) => ({
      client_id: `shop-${alg}`,
      client_secret: "the-secret-of-the-tests",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    })),
    scopes: ["read", "pay", "events"],
    extraTokenClaims: () => ({ instances: ["demo"] }),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => RESOURCE,
        getResourceServerInfo: (context, resource, client) => ({
          scope: "read pay events",
          audience: resource,
          accessTokenTTL: 600,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: client.clientId.split("-")[1] } },
        }),
      },
    },
  }).callback();
}

let answer = provider();
server.on("request", (request, response) => {
  if (request.method === "POST" && request.url === "/rotate") {
    answer = provider();
    response.end();
  } else {
    answer(request, response);
  }
});
console.log(issuer);
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
