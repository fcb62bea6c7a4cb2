// Changes by zone and by day since year 0, in UTC: ["status", zone, day, status] -> change of the number of addresses; ["event", zone, day, event] -> 1
(function (doc) {
  if (!doc.event || typeof doc.at !== 'number' || doc.event === 'retracted') return;
  var day = Math.floor(doc.at / 86400);
  var before = doc.before, after = doc.after;
  if (!before || !after || before.zone !== after.zone || before.status !== after.status) {
    if (before) emit(['status', before.zone, day, before.status], -1);
    if (after) emit(['status', after.zone, day, after.status], 1);
  }
  if (before || after) emit(['event', (after || before).zone, day, doc.event], 1);
});
