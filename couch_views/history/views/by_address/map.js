// Events of each address by time: [sort key, Gregorian seconds, generation, id] -> the fields of the event
(function (doc) {
  // !code lib/event_value.js
  // !code lib/sort_key.js
  if (!doc.event || typeof doc.at !== 'number' || doc.event === 'retracted') return;
  var key = sortKey(String(doc.ip));
  if (key === null) return;
  emit([key, doc.at, parseInt(doc.revision, 10) || 0, doc._id], eventValue(doc));
});
