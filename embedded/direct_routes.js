'use strict';
/*
 * The routes that the service uses most, directly on Node's HTTP server: documents, bulk reads and
 * writes, views and `_all_docs`. They bypass the middleware of Express, which takes ten times as long
 * as PouchDB takes to read a document. Express handles all other requests.
 */
const http = require('http');
const { setTimeout: pause } = require('timers/promises');

const HTTPError = require('./http_error');
const liveDocuments = require('./live_documents');
const views = require('./views');

const DOCUMENT_PARAMETERS = new Set(['conflicts', 'rev', 'revs', 'open_revs', 'r', 'w']);
const STARTED = String(Date.now());
const MAX_BODY = 256 * 1024 * 1024; // bytes

async function json(req) {
  const parts = [];
  let size = 0;
  for await (const part of req) {
    size += part.length;
    if (size > MAX_BODY) {
      throw new HTTPError(413, 'too_large', 'the request entity is too large');
    }
    parts.push(part);
  }
  try {
    return parts.length ? JSON.parse(Buffer.concat(parts)) : {};
  } catch {
    throw new HTTPError(400, 'bad_request', 'invalid_json');
  }
}

async function object(req) {
  const body = await json(req);
  if (body === null || typeof body !== 'object' || Array.isArray(body)) {
    throw new HTTPError(400, 'bad_request', 'Request body must be a JSON object');
  }
  return body;
}

// Parameters are JSON. A value that is not JSON, such as a revision, is text, and so is each id.
function parsed(name, value) {
  if (name.endsWith('_docid')) {
    return value;
  }
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

// PouchDB first lists the leaf revisions, then reads each. A write may replace one in between. The
// list has the new revision a moment later.
async function leavesOf(db, id, revs, attempts = 100) {
  const found = await db.get(id, { open_revs: 'all', revs });
  if (found.every((leaf) => leaf.ok)) {
    return found;
  }
  if (!attempts) {
    throw new HTTPError(500, 'unknown_error', 'a revision is missing');
  }
  await pause(1);
  return leavesOf(db, id, revs, attempts - 1);
}

async function getDocument(db, { options, parts: [id] }) {
  const { open_revs: leaves, revs, r, ...rest } = options; // there is one replica to read from
  if (leaves === undefined) {
    return [200, await db.get(id, revs === undefined ? rest : { ...rest, revs })];
  }
  return [200, await leavesOf(db, id, revs === true)];
}

async function putDocument(db, { req, options, parts: [id] }) {
  const body = await object(req);
  const document = { ...body, _id: body._id || id, _rev: body._rev || options.rev };
  return [201, await db.put(document)];
}

const result = (row) => (row.error ? { id: row.id, error: row.name, reason: row.message } : row);

// Of several writes at the same revision, CouchDB executes the first one. PouchDB would also create
// leaf revisions without content.
function repeatedDocuments(docs) {
  const seen = new Set();
  return new Set(docs.filter(({ _id: id, _rev: rev }) => (
    id !== undefined && seen.size === seen.add(`${rev} ${id}`).size)));
}

async function bulkDocs(db, { req }) {
  const body = await object(req);
  if (!Array.isArray(body.docs)) {
    throw new HTTPError(400, 'bad_request', "Missing JSON list of 'docs'");
  }
  const isReplication = body.new_edits === false;
  const repeated = isReplication ? new Set() : repeatedDocuments(body.docs);
  const docs = body.docs.filter((doc) => !repeated.has(doc));
  const rows = await db.bulkDocs({ ...body, docs }, isReplication ? { new_edits: false } : {});
  if (isReplication) {
    return [201, rows.map(result)];
  }
  return [201, body.docs.map((doc) => (
    repeated.has(doc) ? { id: doc._id, error: 'conflict', reason: 'Document update conflict' }
      : result(rows.shift())))];
}

// CouchDB returns all leaf revisions of each document, PouchDB only the first one.
async function bulkGet(db, { req, options }) {
  const { docs } = await object(req);
  if (!Array.isArray(docs)) {
    throw new HTTPError(400, 'bad_request', "Missing JSON list of 'docs'.");
  }
  const leaves = async ({ id }) => {
    try {
      return await leavesOf(db, id, options.revs === true);
    } catch (error) {
      return [{ error: { id, rev: 'undefined', error: error.name, reason: error.message } }];
    }
  };
  const results = await Promise.all(
    docs.map(async (doc) => ({ id: doc.id, docs: await leaves(doc) })));
  return [200, { results }];
}

const withBody = async ({ req, options }) => (
  req.method === 'POST' ? { ...await object(req), ...options } : options);

async function view(db, request) {
  return [200, await views.query(db, ...request.parts, await withBody(request))];
}

async function allDocs(db, request) {
  const options = await withBody(request);
  return [200, (await liveDocuments.list(db, options)) || await db.allDocs(options)];
}

async function ranges(db, { req }) {
  const { queries } = await object(req);
  const results = [];
  for (const query of queries) {
    results.push((await liveDocuments.list(db, query)) || await db.allDocs(query));
  }
  return [200, { results }];
}

async function information(db, { name }) {
  return [200, { ...await db.info(), db_name: name, instance_start_time: STARTED }];
}

async function informationOfSeveral(open, req) {
  const { keys } = await object(req);
  return Promise.all(keys.map(async (key) => {
    const db = await open(key);
    return db ? { key, info: { ...await db.info(), db_name: key } } : { key, error: 'not_found' };
  }));
}

/* Methods, the path below the database, the parameters if not all are allowed, and the handler. */
const ROUTES = [
  [['GET'], /^([^_/][^/]*)$/, DOCUMENT_PARAMETERS, getDocument],
  [['PUT'], /^([^_/][^/]*)$/, DOCUMENT_PARAMETERS, putDocument],
  [['POST'], /^_bulk_docs$/, null, bulkDocs],
  [['POST'], /^_bulk_get$/, null, bulkGet],
  [['GET', 'POST'], /^_design\/([^/]+)\/_view\/([^/]+)$/, null, view],
  [['GET', 'POST'], /^_all_docs$/, null, allDocs],
  [['POST'], /^_all_docs\/queries$/, null, ranges],
  [['GET'], /^$/, null, information],
];

/* Returns a request's parts, with its handler, or undefined if Express has to handle it. */
function read(req) {
  const [path, query] = req.url.split('?', 2);
  const [, name, rest = ''] = /^\/([^/_][^/]*)\/?(.*)$/.exec(path) || [];
  if (!name || req.headers['if-match'] || /multipart/.test(req.headers['content-type'])) {
    return undefined;
  }
  for (const [methods, pattern, allowed, handler] of ROUTES) {
    const match = methods.includes(req.method) && pattern.exec(rest);
    if (match) {
      const options = Object.fromEntries(
        [...new URLSearchParams(query)].map(([key, value]) => [key, parsed(key, value)]));
      const isKnown = !allowed || Object.keys(options).every((key) => allowed.has(key));
      if (!isKnown || (options.open_revs !== undefined && options.open_revs !== 'all')) {
        return undefined;
      }
      const [decoded, ...parts] = [name, ...match.slice(1)].map(decodeURIComponent);
      return { req, handler, options, name: decoded, parts };
    }
  }
  return undefined;
}

// Writes each row of a view on a line of its own, as CouchDB does.
function text(content) {
  if (!Array.isArray(content.rows)) {
    return JSON.stringify(content);
  }
  const { rows, ...rest } = content;
  const start = JSON.stringify({ ...rest, rows: [] }).slice(0, -2); // up to the bracket
  return `${start}${rows.map((row) => `\r\n${JSON.stringify(row)}`)}\r\n]}`;
}

function send(res, status, content) {
  const body = Buffer.from(`${text(content)}\n`);
  const headers = { 'Content-Type': 'application/json', 'Content-Length': body.length };
  if (status === 201 && content.rev) {
    headers.ETag = `"${content.rev}"`;
  }
  res.writeHead(status, headers);
  res.end(body);
}

/*
 * Returns an HTTP server.
 *
 * open: returns the PouchDB of a name, or undefined if no database has it
 * identify: sets the id of a response
 * app: the Express application for all other requests
 */
exports.createServer = (open, identify, app) => http.createServer(async (req, res) => {
  identify(req, res);
  try {
    if (req.method === 'POST' && req.url === '/_dbs_info') {
      return send(res, 200, await informationOfSeveral(open, req));
    }
    const request = read(req);
    if (!request) {
      return app(req, res);
    }
    const db = await open(request.name);
    if (!db) {
      throw new HTTPError(404, 'not_found', 'no_db_file');
    }
    return send(res, ...await request.handler(db, request));
  } catch (error) {
    const status = error.status || (error instanceof URIError ? 400 : 500);
    return send(res, status, { error: error.name, reason: error.message });
  }
});
