// Events that were taken back, by the time at which that was found: [Gregorian seconds, id] -> [address, id of the event]
(function (doc) {
  if (doc.event !== 'retracted' || typeof doc.at !== 'number' || !doc.retracts) return;
  emit([doc.at, doc._id], [doc.ip, doc.retracts]);
});
