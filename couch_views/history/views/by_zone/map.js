// Events of each zone before or after them, and of all zones as null: [zone, Gregorian seconds, generation, id] -> null
(function (doc) {
  if (!doc.event || !doc.ip || typeof doc.at !== 'number' || doc.event === 'retracted') return;
  var generation = parseInt(doc.revision, 10) || 0;
  var zones = [null];
  [doc.before, doc.after].forEach(function (state) {
    if (state && state.zone && zones.indexOf(state.zone) < 0) zones.push(state.zone);
  });
  zones.forEach(function (zone) { emit([zone, doc.at, generation, doc._id], null); });
});
