'use strict';
/*
 * A server with CouchDB's protocol for one machine: PouchDB over HTTP, with its data in one
 * directory, and Fauxton under /_utils. It listens on loopback only and needs no password.
 *
 *   node server.js DIRECTORY [PORT]    PORT 0, the default, chooses a free port
 *
 * When the server is ready it prints one line of JSON with its port. If it cannot start it prints
 * one line on stderr and exits with status 1. It finishes its requests and ends after SIGTERM,
 * SIGINT, or the end of a pipe on stdin, for example because its parent process has ended.
 */
if (parseInt(process.versions.node, 10) < 20) {
  console.error(`Node.js 20 or newer is needed, and this is ${process.versions.node}: run \`make install\``);
  process.exit(1);
}

const crypto = require('crypto');
const fs = require('fs');
const path = require('path');
const vm = require('vm');

const express = require('express');
const expressPouchDB = require('express-pouchdb');
const { setDBOnReq } = require('express-pouchdb/lib/utils');
const pouchdb = require('pouchdb');

const folder = path.resolve(process.argv[2] || 'data');
const port = Number(process.argv[3] || 0);

function fail(reason) {
  fs.writeSync(2, `${String(reason).split('\n')[0]}\n`);
  process.exit(1);
}

// After such an error PouchDB leaves requests to that database unanswered, so the server ends.
process.on('uncaughtException', (error) => fail(`embedded server: ${error.message}`));

// PouchDB calls this for every document that it indexes, and each new context takes a millisecond.
// With one context for all, a view over 10,000 documents is indexed several times as fast.
const context = vm.createContext({});
vm.runInNewContext = (code) => vm.runInContext(code, context);

// A database is a directory, so slashes in its name are replaced. No valid name has a tilde.
const toFolder = (name) => name.replaceAll('/', '~');
const fromFolder = (name) => name.replaceAll('~', '/');

const PouchDB = pouchdb.defaults({
  prefix: folder + path.sep,
  auto_compaction: true, // otherwise every version of every document is kept
});

const couch = expressPouchDB(PouchDB, {
  mode: 'minimumForPouchDB', // without users, and without log, configuration or sessions on disk
  overrideMode: {
    include: ['routes/active-tasks', 'routes/cluster', 'routes/cluster-rewrite',
      'routes/ddoc-info', 'routes/fauxton', 'routes/find'],
  },
});

// express-pouchdb passes options where PouchDB expects the callback, and the request would hang.
couch.dbWrapper.registerWrapper((name, db, next) => {
  const cleanUp = db.viewCleanup.bind(db);
  db.viewCleanup = (options, done) => cleanUp(done);
  return next();
});

const refuse = (res, status, error, reason) => res.status(status).json({ error, reason });

// Of two requests that create the same database one has to fail, so they are handled in turn.
let turn = Promise.resolve();
function inTurn(req, res, next) {
  const before = turn;
  turn = new Promise((done) => { res.on('close', done); });
  before.then(() => next());
}

function openDatabase(req, res, next) {
  req.PouchDB = PouchDB;
  setDBOnReq(req.params.db, couch.dbWrapper, req, res, next);
}

/* Routes that express-pouchdb lacks, or that differ from CouchDB's. */
const app = express();

// As in CouchDB, every response has the id of its request.
app.use((req, res, next) => {
  const id = req.get('X-Couch-Request-ID') || '';
  res.set('X-Couch-Request-ID',
    /^[\w-]{1,36}$/.test(id) ? id : crypto.randomBytes(5).toString('hex'));
  next();
});

app.get('/_up', (req, res) => res.json({ status: 'ok' }));

app.get('/_uuids', (req, res) => res.json({
  uuids: Array.from({ length: req.query.count || 1 }, () => crypto.randomBytes(16).toString('hex')),
}));

app.get('/_all_dbs', async (req, res) => {
  const { startkey, endkey, skip = 0, limit = Infinity } = Object.fromEntries(
    Object.entries(req.query).map(([key, value]) => [key, JSON.parse(value)]));
  res.json((await PouchDB.allDbs()).map(fromFolder).sort()
    .filter((name) => !(name < startkey || name > endkey)).slice(skip, skip + limit));
});

app.use((req, res, next) => {
  const [, database, rest] = /^\/([^/?]*)(.*)$/.exec(req.url);
  req.url = `/${encodeURIComponent(toFolder(decodeURIComponent(database)))}${rest}`;
  if (req.method === 'COPY') { // express-pouchdb's route for COPY does not match a slash
    req.url = req.url.replace('/_design/', '/_design%2F');
  }
  if (req.headers['if-match'] && !req.query.rev) {
    req.query.rev = req.headers['if-match'].replaceAll('"', '');
  }
  delete req.query.latest; // PouchDB throws an error if the revision does not exist
  next();
});

app.get('/:db', (req, res, next) => {
  const { send } = res;
  res.send = (body) => send.call(res, Buffer.from(fromFolder(String(body))));
  next();
});

app.put('/:db', inTurn, (req, res, next) => {
  if (/^(_users|_replicator|[a-z][a-z0-9_$()+~-]*)$/.test(req.params.db)) {
    return next();
  }
  return refuse(res, 400, 'illegal_database_name', `Name: '${fromFolder(req.params.db)}'.`);
});

app.delete('/:db', inTurn, async (req, res, next) => {
  if ((await PouchDB.allDbs()).includes(req.params.db)) {
    return next();
  }
  return refuse(res, 404, 'not_found', 'Database does not exist.');
});

// express-pouchdb accepts a deletion without a revision, and deletes the current one.
app.delete(
  ['/:db/:id', '/:db/:kind(_design|_local)/:id'],
  openDatabase,
  async (req, res) => {
    const id = req.params.kind ? `${req.params.kind}/${req.params.id}` : req.params.id;
    try {
      await req.db.get(id);
      res.json(await req.db.remove({ _id: id, _rev: req.query.rev }));
    } catch (error) {
      refuse(res, error.status || 500, error.name, error.message);
    }
  },
);

// CouchDB returns all leaf revisions of each document here, PouchDB only the first.
app.post('/:db/_bulk_get', express.json({ limit: '64mb' }), openDatabase, async (req, res) => {
  const leaves = async ({ id }, attempts = 10) => {
    try {
      const found = await req.db.get(id, { open_revs: 'all' });
      // PouchDB first lists the leaves, then reads each: one may have been replaced meanwhile.
      return attempts && found.some((leaf) => !leaf.ok) ? leaves({ id }, attempts - 1) : found;
    } catch (error) {
      return [{ error: { id, rev: 'undefined', error: error.name, reason: error.message } }];
    }
  };
  const docs = (req.body || {}).docs;
  if (!Array.isArray(docs)) {
    return refuse(res, 400, 'bad_request', "Missing JSON list of 'docs'.");
  }
  return res.json({
    results: await Promise.all(docs.map(async (doc) => ({ id: doc.id, docs: await leaves(doc) }))),
  });
});

app.use(couch);

async function open(name) {
  const db = new PouchDB(name);
  await db.info();
  await db.close();
}

async function start() {
  try {
    fs.mkdirSync(folder, { recursive: true });
    fs.accessSync(folder, fs.constants.R_OK | fs.constants.W_OK | fs.constants.X_OK);
    // LevelDB reports a directory that is in use or damaged now, not at the first request.
    await open('pouch__all_dbs__');
    // Each account has a database. Opening all of them would make every start slower.
    for (const name of (await PouchDB.allDbs()).filter((each) => !each.includes('~'))) {
      await open(name);
    }
  } catch (error) {
    const inUse = error.message.includes('LOCK');
    fail(`the data folder ${folder} ${inUse ? 'is in use by another server'
      : `cannot be used: ${error.message}`}`);
  }

  const server = app.listen(port, '127.0.0.1', () => {
    console.log(JSON.stringify({ ready: true, port: server.address().port }));
  });
  server.on('error', (error) => fail(error.code === 'EADDRINUSE'
    ? `port ${port} is in use` : `port ${port} cannot be used: ${error.message}`));

  const stop = () => {
    setTimeout(() => process.exit(0), 3000).unref(); // for a request that never ends
    server.close(async () => {
      await Promise.all([...(PouchDB.__dbCacheMap || new Map()).values()].map((db) => db.close()));
      process.exit(0);
    });
    server.closeIdleConnections();
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  if (fs.fstatSync(0).isFIFO()) {
    process.stdin.on('end', stop).on('error', stop).resume();
  }
}

start();
