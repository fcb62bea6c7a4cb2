'use strict';
/*
 * The views of a database, with their rows in memory. PouchDB keeps each view in a database of its own,
 * so it reads and parses a document for each row of a list, and writes one for each row that changes.
 *
 * As in CouchDB, the views of a design document are one index, and a read first adds all changes since
 * the read before. The first read after a start maps all documents: 10,000 addresses take 1.5 s, and
 * their 50,000 rows 20 MB.
 */
const vm = require('vm');
const { collate, toIndexableString } = require('pouchdb-collate');

const HTTPError = require('./http_error');

const FEW = 20; // with more changes, sorting all rows again is faster than moving them each time
const PASSES = 100;

// The order of the rows is that of these texts, which PouchDB uses as well.
const before = (parts) => toIndexableString(parts);
const after = (parts) => toIndexableString([...parts, {}]);

// The functions of design documents run in a context of their own, with copies of the documents.
const context = vm.createContext({});
const parse = vm.runInContext('(text) => JSON.parse(text)', context);
const copied = (value) => parse(JSON.stringify(value));

function compile(source, emit) {
  const text = source.replace(/;\s*$/, '');
  const names = ['emit', 'sum', 'log', 'isArray', 'toJSON'];
  try {
    return vm.runInContext(`(function (${names}) { 'use strict'; return (${text}\n); })`, context)(
      emit, sum, () => {}, Array.isArray, JSON.parse);
  } catch (error) {
    return () => { throw error; }; // as if it failed for each document
  }
}

function sum(values) {
  return values.reduce((total, value) => {
    const [totals, parts] = [total, value].map((each) => (Array.isArray(each) ? each : [each]));
    if (!parts.every((part) => typeof part === 'number')) {
      throw new HTTPError(500, 'invalid_value',
        'builtin _sum function requires map values to be numbers or number arrays');
    }
    const [long, short] = totals.length < parts.length ? [parts, totals] : [totals, parts];
    const added = long.map((part, i) => part + (short[i] || 0));
    return Array.isArray(total) || Array.isArray(value) ? added : added[0];
  }, 0);
}

const valuesOf = (rows) => rows.map(({ line }) => line.value);

const BUILT_IN = {
  _count: (rows) => rows.length,
  _sum: (rows) => sum(valuesOf(rows)),
  _stats: (rows) => {
    const values = valuesOf(rows);
    return {
      sum: sum(values),
      min: values.reduce((a, b) => Math.min(a, b), Infinity),
      max: values.reduce((a, b) => Math.max(a, b), -Infinity),
      count: values.length,
      sumsqr: values.reduce((total, value) => total + value * value, 0),
    };
  },
};

// Returns a function of the rows of a group.
function reduction(source) {
  const [name] = /^_\w*/.exec(source) || [];
  if (name) {
    return BUILT_IN[name] || (() => {
      throw new HTTPError(500, 'Error', `${source} is not a supported reduce function.`);
    });
  }
  const reduce = compile(source);
  return (rows) => {
    try {
      const keys = rows.map(({ line }) => [line.key, line.id]);
      return reduce(copied(keys), copied(valuesOf(rows)), false);
    } catch {
      return null; // as CouchDB does
    }
  };
}

// Returns the first position from `low` on whose row has no longer a property that all rows before have.
function find(rows, has, low = 0) {
  let [start, end] = [low, rows.length];
  while (start < end) {
    const middle = (start + end) >> 1;
    if (has(rows[middle])) {
      start = middle + 1;
    } else {
      end = middle;
    }
  }
  return start;
}

const position = (rows, place) => find(rows, (row) => row.place < place);

/* The rows of one view in their order. Each has its place in that order, and its line in a response. */
class View {
  constructor({ map, reduce }) {
    this.rows = [];
    this.ofDocument = new Map();
    this.map = compile(map, (...pair) => this.emitted.push(pair));
    this.reduce = reduce ? reduction(String(reduce)) : undefined;
  }

  update(changes) {
    const [gone, added] = [new Set(), []];
    for (const { id, document } of changes) {
      (this.ofDocument.get(id) || []).forEach((row) => gone.add(row));
      const rows = document ? this.rowsOf(id, document) : [];
      this.ofDocument[rows.length ? 'set' : 'delete'](id, rows);
      added.push(...rows);
    }
    if (gone.size + added.length > FEW) {
      this.rows = this.rows.filter((row) => !gone.has(row)).concat(added)
        .sort((a, b) => (a.place < b.place ? -1 : 1));
      return;
    }
    gone.forEach((row) => this.rows.splice(position(this.rows, row.place), 1));
    added.forEach((row) => this.rows.splice(position(this.rows, row.place), 0, row));
  }

  rowsOf(id, document) {
    this.emitted = [];
    try {
      this.map(document);
      this.emitted = JSON.parse(JSON.stringify(this.emitted));
    } catch {
      return []; // as CouchDB does
    }
    const lines = this.emitted.map(([key = null, value = null]) => ({ id, key, value }))
      .sort((a, b) => collate(a.key, b.key) || collate(a.value, b.value));
    return lines.map((line, i) => {
      const isRepeated = i > 0 && collate(line.key, lines[i - 1].key) === 0;
      return { line, place: before(isRepeated ? [line.key, id, i] : [line.key, id]) };
    });
  }
}

/* All views of a design document. */
class Index {
  constructor(design) {
    this.design = design;
    this.seq = 0;
    this.views = new Map(Object.entries(design.views || {})
      .filter(([, view]) => view && typeof view.map === 'string')
      .map(([name, view]) => [name, new View(view)]));
  }

  // Adds all changes before this call.
  async update(db) {
    const { update_seq: seq } = await db.info();
    while (this.seq < seq && !this.isReplaced) {
      this.reading ??= this.read(db).finally(() => { this.reading = undefined; });
      await this.reading;
    }
  }

  // PouchDB leaves out a document that changes while it reads the changes. Then they are read again.
  async read(db) {
    let since = this.seq;
    for (let passes = 0; passes < PASSES; passes += 1) {
      const { update_seq: seq } = await db.info();
      if (seq === since) {
        break;
      }
      const { results } = await db.changes({ since, include_docs: true, conflicts: true });
      const own = results.find(({ id }) => id === this.design._id);
      if (own && own.doc._rev !== this.design._rev) {
        this.isReplaced = true;
        return;
      }
      const changes = results.filter(({ id }) => !id.startsWith('_'))
        .map(({ id, deleted, doc }) => ({ id, document: deleted ? undefined : copied(doc) }));
      this.views.forEach((view) => view.update(changes));
      since = seq;
    }
    this.seq = since;
  }
}

const indexes = new WeakMap();

async function indexOf(db, name) {
  const known = indexes.get(db) || indexes.set(db, new Map()).get(db);
  for (;;) {
    if (!known.has(name)) {
      const design = await db.get(`_design/${name}`);
      known.set(name, known.get(name) || new Index(design));
    }
    const index = known.get(name);
    await index.update(db);
    if (!index.isReplaced) {
      return index;
    }
    if (known.get(name) === index) {
      known.delete(name);
    }
  }
}

// Returns the first and the last place of a query.
function range({ descending, key, inclusive_end: isInclusive = true, ...options }) {
  const [start, end] = key === undefined ? [options.startkey, options.endkey] : [key, key];
  const ids = [options.startkey_docid, options.endkey_docid];
  const [from, to] = [start, end].map((each, i) => (ids[i] === undefined ? [each] : [each, ids[i]]));
  const [low, high] = descending ? [to, from] : [from, to];
  const isWhole = isInclusive || key !== undefined;
  const first = isWhole || !descending ? before : after;
  const last = isWhole || descending ? after : before;
  return [low[0] === undefined ? '' : first(low), high[0] === undefined ? '\uffff' : last(high)];
}

function select(rows, options, skip = 0, limit = Infinity) {
  const [first, last] = range(options).map((place) => position(rows, place));
  if (options.descending) {
    const end = Math.max(first, last - skip);
    return rows.slice(Math.max(first, end - limit), end).reverse();
  }
  const start = Math.min(last, first + skip);
  return rows.slice(start, Math.min(last, start + limit));
}

// Returns the beginning that the places of all rows of a group have.
function beginning(key, level) {
  if (level === 0) {
    return '';
  }
  const isPart = Array.isArray(key) && key.length >= level;
  return before([isPart ? key.slice(0, level) : key]).slice(0, isPart ? -2 : -1);
}

function groups(view, rows, options) {
  const level = Number(options.group_level) || (options.group ? Infinity : 0);
  const found = [];
  for (let start = 0; start < rows.length;) {
    const { key } = rows[start].line;
    const place = beginning(key, level);
    const end = find(rows, (row) => row.place.startsWith(place), start);
    const part = Array.isArray(key) ? key.slice(0, level) : key;
    found.push({ key: level === 0 ? null : part, value: view.reduce(rows.slice(start, end)) });
    start = end;
  }
  return found;
}

function check(options, isReduced) {
  const refuse = (reason) => { throw new HTTPError(400, 'query_parse_error', reason); };
  const { startkey, endkey, descending, keys, group, group_level: level } = options;
  const [low, high] = descending ? [endkey, startkey] : [startkey, endkey];
  if (low !== undefined && high !== undefined && collate(low, high) > 0) {
    refuse('No rows can match your key range, '
      + 'reverse your start_key and end_key or set {descending : true}');
  }
  if (isReduced && options.include_docs) {
    refuse('{include_docs:true} is invalid for reduce');
  }
  if (isReduced && keys && keys.length > 1 && !group && !level) {
    refuse('Multi-key fetches for reduce views must use {group: true}');
  }
  for (const name of ['group_level', 'limit', 'skip']) {
    const value = options[name];
    if (value && Number(value) !== parseInt(value, 10)) {
      refuse(`Invalid value for integer: "${value}"`);
    } else if (value < 0) {
      refuse(`Invalid value for positive integer: "${value}"`);
    }
  }
}

// A value can name another document.
const target = ({ id, value }) => (value && value._id) || id;

async function withDocuments(db, lines, { conflicts, attachments }) {
  const keys = [...new Set(lines.map(target))];
  const { rows } = await db.allDocs({ keys, include_docs: true, conflicts, attachments });
  const documents = new Map(rows.map(({ id, doc }) => [id, doc]));
  return lines.map((line) => {
    const doc = documents.get(target(line));
    return doc ? { ...line, doc } : line;
  });
}

/*
 * Returns CouchDB's response to a query of a view.
 *
 * design, name: the names of the design document and of the view
 * given: CouchDB's parameters. It is always up to date, whatever `stale` or `update` says
 */
exports.query = async (db, design, name, given) => {
  const options = { startkey: given.start_key, endkey: given.end_key, ...given };
  const index = await indexOf(db, design);
  const view = index.views.get(name);
  if (!view) {
    throw new HTTPError(404, 'not_found', `ddoc _design/${design} has no view named ${name}`);
  }
  const isReduced = view.reduce && options.reduce !== false;
  check(options, isReduced);
  const [skip, limit] = [Number(options.skip || 0), Number(options.limit ?? Infinity)];
  const { keys } = options;
  const ofKeys = () => keys.map((key) => select(view.rows, { ...options, key }));
  const seq = options.update_seq ? { update_seq: index.seq } : {};
  if (isReduced) {
    const ranges = keys ? ofKeys() : [select(view.rows, options)];
    const rows = ranges.flatMap((found) => groups(view, found, options));
    return { rows: rows.slice(skip, skip + limit), ...seq };
  }
  const found = keys ? ofKeys().flat().slice(skip, skip + limit) : select(view.rows, options, skip, limit);
  const lines = found.map(({ line }) => line);
  const rows = options.include_docs ? await withDocuments(db, lines, options) : lines;
  return { total_rows: view.rows.length, offset: skip, rows, ...seq };
};
