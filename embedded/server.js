'use strict';
/*
 * A server with CouchDB's protocol for one machine: PouchDB over HTTP, with its data in one
 * directory, and Fauxton under /_utils. It listens on loopback only and needs no password.
 *
 *   node server.js DIRECTORY [PORT]    PORT 0, the default, chooses a free port
 *   node server.js :memory: [PORT]     with its data in memory, for tests
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
const { getOrCreateDB } = require('express-pouchdb/lib/create-or-delete-dbs');
const { setDBOnReq } = require('express-pouchdb/lib/utils');
const pouchdb = require('pouchdb');

const { createServer } = require('./direct_routes');

const inMemory = process.argv[2] === ':memory:';
const folder = path.resolve(inMemory ? '' : process.argv[2] || 'data');
const port = Number(process.argv[3] || 0);

function fail(reason) {
  fs.writeSync(2, `${String(reason).split('\n')[0]}\n`);
  process.exit(1);
}

// After such an error PouchDB no longer responds to requests for that database, so the server ends.
process.on('uncaughtException', (error) => fail(`embedded server: ${error.message}`));

// A database is a directory, so slashes in its name are replaced. No valid name has a tilde.
const toFolder = (name) => name.replaceAll('/', '~');
const fromFolder = (name) => name.replaceAll('~', '/');

if (inMemory) {
  pouchdb.plugin(require('pouchdb-adapter-memory'));
}
const PouchDB = pouchdb.defaults({
  // Tests write and delete the same few documents thousands of times. PouchDB reads and writes the
  // whole list of a document's revisions with each of its revisions, up to a thousand.
  ...inMemory && { adapter: 'memory', revs_limit: 100 },
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

const context = vm.createContext({});

// PouchDB does not call `validate_doc_update`. This server calls it for the databases of the history.
// It reads all documents of a write at once, because the service writes a thousand events together.
// All writes of PouchDB pass `bulkDocs`.
function validate(db) {
  const bulkDocs = db.bulkDocs.bind(db);
  const run = async (body, options) => {
    const docs = Array.isArray(body) ? body : body.docs;
    const refused = await refusals(db, docs, options.new_edits === false);
    const written = await bulkDocs({ ...body, docs: docs.filter((_, i) => !refused[i]) }, options);
    return options.new_edits === false ? [...refused.filter(Boolean), ...written]
      : refused.map((each) => each || written.shift());
  };
  db.bulkDocs = (body, options, callback) => {
    const done = typeof options === 'function' ? options : callback;
    const result = run(body, typeof options === 'function' ? {} : options || {});
    return done ? result.then((written) => done(null, written), done) : result;
  };
}

// Returns for each document PouchDB's error, or undefined if it may be written.
async function refusals(db, docs, isReplication) {
  const designs = await db.allDocs({ startkey: '_design/', endkey: '_design0', include_docs: true });
  const functions = designs.rows.map((row) => row.doc.validate_doc_update).filter(Boolean)
    .map((source) => vm.runInContext(source, context));
  const rows = (await db.allDocs({ keys: docs.map((doc) => doc._id), include_docs: true })).rows;
  return docs.map((doc, i) => {
    const { doc: live, value } = rows[i];
    const old = live || (value && value.deleted ? { _id: doc._id, _deleted: true } : null);
    // CouchDB finds a conflict before it calls the function.
    const conflicts = !isReplication && live && doc._rev !== live._rev;
    if (conflicts || (isReplication && old && old._rev === doc._rev)) {
      return undefined;
    }
    try {
      functions.forEach((each) => each(doc, old, { name: null, roles: ['_admin'] }, {}));
      return undefined;
    } catch (error) {
      const message = error.forbidden || String(error);
      return { id: doc._id, error: true, status: 403, name: 'forbidden', message, reason: message };
    }
  });
}

couch.dbWrapper.registerWrapper((name, db, next) => {
  if (/kazoo_ips_history_\d{4}$/.test(name)) {
    validate(db);
  }
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

// The databases that direct routes have used, by name.
const opened = new Map();

async function openDirectly(name) {
  const folderName = toFolder(name);
  let db = opened.get(folderName);
  if (!db) {
    if (!(await PouchDB.allDbs()).includes(folderName)) {
      return undefined;
    }
    db = await getOrCreateDB(PouchDB, folderName);
    await couch.dbWrapper.wrap(folderName, db);
    opened.set(folderName, db);
  }
  return db;
}

// As in CouchDB, every response has the id of its request.
function identify(req, res) {
  const id = req.headers['x-couch-request-id'] || '';
  res.setHeader('X-Couch-Request-ID',
    /^[\w-]{1,36}$/.test(id) ? id : crypto.randomBytes(5).toString('hex'));
}

/* Routes that express-pouchdb lacks, or that differ from CouchDB's. */
const app = express();

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

// As in CouchDB, a database can be an object with its URL, and the reply reports what was copied. This
// server needs no password, so it ignores the password of the object.
app.post('/_replicate', express.json(), async (req, res, next) => {
  const urls = [req.body.source, req.body.target].map((each) => each && each.url);
  if (!urls.every(Boolean)) {
    return next();
  }
  try {
    const { docs_written: written } = await pouchdb.replicate(...urls);
    return res.json({ ok: true, ...written ? {} : { no_changes: true }, history: [{ docs_written: written }] });
  } catch (error) {
    return refuse(res, 500, 'replication_failed', error.message);
  }
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
    opened.delete(req.params.db);
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

// PouchDB accepts any sequence. CouchDB refuses one that is malformed. If a sequence belongs to an
// earlier database of this name, CouchDB reads from the start.
app.get('/:db/_changes', openDatabase, async (req, res, next) => {
  const { since } = req.query;
  if (since === undefined || since === 'now') {
    return next();
  }
  if (!/^\d+$/.test(since)) {
    const reason = "Malformed sequence supplied in 'since' parameter.";
    return res.status(400).json({ error: 'bad_request', reason });
  }
  if (Number(since) > (await req.db.info()).update_seq) {
    req.query.since = '0';
  }
  return next();
});

// express-pouchdb ignores the timeout of a long poll.
app.get('/:db/_changes', openDatabase, async (req, res, next) => {
  const { feed, timeout, since, limit } = req.query;
  if (feed !== 'longpoll' || !timeout) {
    return next();
  }
  const read = () => req.db.changes({
    since: since === 'now' ? since : Number(since || 0), limit: Number(limit || 1000),
  });
  let found = await read();
  if (!found.results.length) {
    await new Promise((done) => {
      const live = req.db.changes({ since: found.last_seq, live: true, limit: 1 });
      const timer = setTimeout(done, Number(timeout));
      live.on('change', done).on('error', done);
      req.on('close', done);
      live.finish = () => { clearTimeout(timer); live.cancel(); };
      res.on('close', live.finish);
    });
    found = await read();
  }
  return res.json(found);
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

  const server = createServer(openDirectly, identify, app).listen(port, '127.0.0.1', () => {
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
