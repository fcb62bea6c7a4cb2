'use strict';
/*
 * Lists the documents of a database in which many are deleted. PouchDB reads and parses each deleted
 * document of a range too. Tests delete thousands, and this took half of the server's time. So this
 * module keeps the ids of live documents, up to a sequence of the database.
 */
const FEW = 50; // with fewer writes, an index of live documents saves no time
const PARAMETERS = new Set(['startkey', 'endkey', 'descending', 'limit', 'skip', 'include_docs', 'conflicts']);

const indexes = new WeakMap();

// LevelDB compares bytes, and the database in memory compares texts. These texts differ in order.
const SURROGATE = /[\ud800-\udfff]/;

// Returns the place of an id in a sorted list, or the place to insert it.
function place(ids, id, after = false) {
  let [low, high] = [0, ids.length];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (ids[middle] < id || (after && ids[middle] === id)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

function set(ids, id, contained) {
  const at = place(ids, id);
  if ((ids[at] === id) !== contained) {
    ids.splice(at, contained ? 0 : 1, ...contained ? [id] : []);
  }
}

async function indexOf(db, seq) {
  const index = indexes.get(db) || { seq: 0, known: [], live: [] };
  indexes.set(db, index);
  if (index.seq < seq) {
    const { results, last_seq: last } = await db.changes({ since: index.seq });
    if (last > index.seq) { // else another request has read these changes, or later ones
      for (const { id, deleted } of results) {
        set(index.known, id, true);
        set(index.live, id, !deleted);
      }
      index.seq = results.some(({ id }) => SURROGATE.test(id)) ? Infinity : last;
    }
  }
  return index;
}

function range(ids, { startkey, endkey, descending }) {
  const [first, last] = descending ? [endkey, startkey] : [startkey, endkey];
  const found = ids.slice(first ? place(ids, first) : 0, last ? place(ids, last, true) : ids.length);
  return descending ? found.reverse() : found;
}

/* Returns the result of `allDocs`, or undefined if PouchDB has to read the range. */
exports.list = async (db, options) => {
  const { update_seq: seq, doc_count: total } = await db.info();
  const isKnown = Object.keys(options).every((key) => PARAMETERS.has(key));
  if (seq - total < FEW || !isKnown) {
    return undefined;
  }
  const index = await indexOf(db, seq);
  const { limit, skip = 0, include_docs: include, conflicts } = options;
  const live = range(index.live, options);
  if (index.seq !== seq || range(index.known, options).length < 4 * live.length) {
    return undefined;
  }
  const keys = live.slice(skip, limit === undefined ? undefined : skip + limit);
  const rows = keys.length ? (await db.allDocs({ keys, include_docs: include, conflicts })).rows : [];
  // PouchDB reads the keys one after the other. The rows are consistent only if no write came between.
  return (await db.info()).update_seq === seq ? { total_rows: total, offset: skip, rows } : undefined;
};
