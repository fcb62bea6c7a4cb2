  // The event as kazoo_ips.repositories.history_documents.from_view reads it. The names of the fields would make the index half as large again.
  function eventValue(doc) {
    function state(of) { return of && [of.status, of.account_id, of.zone, of.host]; }
    return [
      doc.id, doc.ip, doc.event, doc.at, doc.account_id, state(doc.before), state(doc.after), doc.by, doc.request_id,
      doc.source, doc.certain, doc.revision, doc.reason
    ];
  }
