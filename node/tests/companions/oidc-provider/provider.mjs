// Three OpenID providers on loopback or another address: the one that a gateway knows, a stranger, and an impostor that
// signs in the name of the first. Arguments: folder of the modules, certificate, key, address. Writes where they are as one line of JSON. Each line on
// standard input is an order; the process ends with its input.
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [modules, certificate, key, host = '127.0.0.1'] = process.argv.slice(2);
// It warns of being used for development.
console.warn = () => {};
console.info = () => {};
const { default: Provider } = await import(pathToFileURL(createRequire(`${modules}/`).resolve('oidc-provider')));

const jwk = (pair, kid, alg) => ({ ...pair.privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig' });
const keys = (name) => [
  jwk(generateKeyPairSync('rsa', { modulusLength: 2048 }), `${name}-rsa`, 'RS256'),
  jwk(generateKeyPairSync('ec', { namedCurve: 'P-256' }), `${name}-ec`, 'ES256'),
];

// What tokens can be asked for, as RFC 8707 resources.
const resources = {
  'urn:test:rs256': { audience: 'althing', accessTokenTTL: 600, alg: 'RS256' },
  'urn:test:es256': { audience: 'althing', accessTokenTTL: 600, alg: 'ES256' },
  'urn:test:short': { audience: 'althing', accessTokenTTL: 1, alg: 'RS256' },
  'urn:test:other': { audience: 'somebody', accessTokenTTL: 600, alg: 'RS256' },
};
const client = (role) => ({
  client_id: role,
  client_secret: `${role}-secret`,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
});

function provider(issuer, keySet) {
  return new Provider(issuer, {
    clients: [client('reader'), client('writer')],
    jwks: { keys: keySet },
    extraTokenClaims: (_, token) => ({ roles: [token.clientId] }),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, name) => {
          const { alg, ...resource } = resources[name];
          return { ...resource, scope: '', accessTokenFormat: 'jwt', jwt: { sign: { alg } } };
        },
      },
    },
  }).callback();
}

// Listens before its handler is known: the name of an issuer holds its port.
async function listen() {
  const place = { handle: undefined };
  const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (request, response) =>
    place.handle(request, response));
  await new Promise((resolve) => server.listen(0, host, resolve));
  place.url = `https://${host}:${server.address().port}`;
  return place;
}

const [known, stranger, impostor] = [await listen(), await listen(), await listen()];
const old = keys('old');
const fresh = keys('new');
known.handle = provider(known.url, old);
stranger.handle = provider(stranger.url, keys('old'));
impostor.handle = provider(known.url, keys('old'));
const orders = {
  // The new keys sign, the old ones are still published.
  rotate: () => { known.handle = provider(known.url, [...fresh, ...old]); },
  // The old keys are no longer published.
  retire: () => { known.handle = provider(known.url, fresh); },
  // Keys that nobody publishes, under ids that nobody knows.
  disguise: () => { impostor.handle = provider(known.url, keys('unheard-of')); },
};
console.log(JSON.stringify({ known: known.url, stranger: stranger.url, impostor: impostor.url }));
for await (const order of createInterface({ input: process.stdin })) {
  orders[order]();
  console.log(JSON.stringify({ done: order }));
}
process.exit(0);
