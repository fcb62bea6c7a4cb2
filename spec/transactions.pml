/* Transactions over several addresses, concurrent with each other and with requests for one address, on a single node.

   A flag (-D...) chooses the processes of a scenario: RELEASE, ASSIGN, ALLOCATE, BOTH or KAZOO. The owner of a
   transaction may die between any two of its database requests, or go on although it is taken for dead. One of its
   writes may get no reply and arrive at any time, even after recovery, or never. Each step names the method that it
   models. tests/test_spec.py compares these names with the code. */

#define FREE 0
#define X 1
#define Y 2
#define Z 3
#define NONE 0

#ifdef ALLOCATE
#define N 3
#else
#define N 2
#endif
#define BIT(k) (1 << (k))

mtype:decision = { PENDING, COMMITTED, ABORTED, GONE };
mtype:kind = { TAKE, GIVE };
mtype:answer = { DONE, REFUSED, UNSURE };

typedef Document { byte rev = 1; byte holder; byte mark; byte by };
typedef Record { mtype:decision state; byte rev; mtype:kind action; byte account; byte addresses; bool orphan };
typedef Flight { bool on; byte at; byte rev; byte holder; byte mark };

Document doc[N];
Record rec[3];           /* by the number of the transaction, from 1 */
Flight flight;           /* the write without a reply */
mtype:answer told[6];     /* by the number of the request */

/* Variables that only the properties use. */
byte owned[N];           /* the account that has the address by the decisions so far */
byte freed[3];           /* the addresses that a transaction has made available */
bool meddled[N];         /* a Kazoo node has written */
bool flown;

/* One database request at a time: init chooses the process that sends the next one, in any order. */
byte turn;
bool waiting[8];
#define STEP waiting[_pid] = true; turn = 0; (turn == _pid); waiting[_pid] = false

/* One document. */

inline put(k, r, h, m, w, ok) { /* IPRepository.save */
  STEP;
  apply(k, r, h, m, w, ok)
}

inline apply(k, r, h, m, w, ok) {
    if
#ifndef WRITE_WITHOUT_REVISION
    :: doc[k].rev == r ->
#else
    :: true ->
#endif
       assert(owned[k] == FREE || owned[k] == h || w == 5);
       doc[k].rev++; doc[k].holder = h; doc[k].mark = (h == FREE && w != 5 -> 0 : m); doc[k].by = w;
       ok = true
#ifndef WRITE_WITHOUT_REVISION
    :: else -> ok = false
#endif
    fi
}

inline read(k) { atomic { STEP; seen = doc[k].rev; holder = doc[k].holder; mark = doc[k].mark; by = doc[k].by } }

/* Records. */

inline find(t) { atomic { STEP; state = rec[t].state; version = rec[t].rev } } /* TransactionLog.find */

inline begin(t, a, account_, wanted) { /* TransactionService.begin, TransactionLog.begin */
  STEP;
  atomic {
    rec[t].state = PENDING; rec[t].rev = 1; rec[t].action = a; rec[t].account = account_;
    rec[t].addresses = wanted; version = 1
  }
}

inline extend(t, more) { /* TransactionService.extend, TransactionLog.extend */
  STEP;
  atomic {
    if :: rec[t].state == PENDING && rec[t].rev == version ->
          rec[t].addresses = rec[t].addresses | more; rec[t].rev++; version = rec[t].rev; ok = true
       :: else -> ok = false
    fi
  }
}

inline commit(t, written) { /* TransactionLog.commit */
  STEP;
  atomic {
    if
#ifndef COMMIT_WITHOUT_CAS
    :: rec[t].state == PENDING && rec[t].rev == version ->
#else
    :: true ->
#endif
       rec[t].state = COMMITTED; rec[t].addresses = written; rec[t].rev++; version = rec[t].rev; ok = true;
       k = 0;
       do
       :: k < N && (written & BIT(k)) ->
          /* at the commit all documents agree with the record */
#ifndef FREE_BEFORE_COMMIT
          assert(meddled[k] || (doc[k].holder == rec[t].account && doc[k].mark == t));
#endif
          if :: rec[t].action == TAKE && !meddled[k] -> owned[k] = rec[t].account
             :: rec[t].action == GIVE && !meddled[k] -> owned[k] = FREE
             :: else
          fi;
          k++
       :: k < N && !(written & BIT(k)) -> k++
       :: else -> break
       od;
       k = 0
#ifndef COMMIT_WITHOUT_CAS
    :: else -> ok = false
#endif
    fi
  }
}

inline abort(t) { /* TransactionLog.abort */
  STEP;
  atomic {
    if
#ifndef ABORT_WITHOUT_CAS
    :: rec[t].state == PENDING && rec[t].rev == version ->
#else
    :: rec[t].state != GONE ->
#endif
       rec[t].state = ABORTED; rec[t].rev++; version = rec[t].rev; ok = true
    :: else -> ok = false
    fi
  }
}

inline forget(t) { /* TransactionLog.finish, TransactionLog.forget, Records.remove */
  STEP;
  atomic { if :: rec[t].rev == version -> rec[t].state = GONE; rec[t].rev++ :: else fi }
}

/* What every process does with a transaction that is committed or aborted. */

#ifdef ANY_MARK
#define IS_OWN(t) (holder == rec[t].account)
#else
#ifdef TRUST_MARKS
#define IS_OWN(t) (mark == t)
#else
#define IS_OWN(t) (mark == t && holder == rec[t].account && (rec[t].action == GIVE || by == t))
#endif
#endif
#ifdef FREE_BEFORE_COMMIT
#define GIVEN FREE
#else
#define GIVEN account
#endif

inline decided(t, j) { /* one document is changed to agree with the decision */
  ok = true;
  if
  :: IS_OWN(t) ->
#ifdef TRUST_MARKS
     /* DedicatedIP.release raises, and the record is never deleted */
     assert(rec[t].action == TAKE || holder == rec[t].account);
#endif
     atomic {
       put(j, seen, FREE, 0, t, ok);
       if :: ok && rec[t].action == GIVE -> freed[t] = freed[t] | BIT(j) :: else fi
     }
  :: else
  fi
}

inline finish(t) { /* RecoveryService.finish */
  if
  :: !(rec[t].action == GIVE && state == ABORTED) && !(rec[t].action == TAKE && state == COMMITTED) ->
     i = 0;
     do /* RecoveryService._finish_documents, IPRepository.save_all */
     :: i < N && (rec[t].addresses & BIT(i)) ->
        read(i);
        decided(t, i);
#ifndef NO_FENCE
        if :: ok && holder == FREE && rec[t].action == TAKE -> put(i, seen, FREE, 0, 4, ok) :: else fi;
#endif
        if :: ok -> i++ :: else fi
     :: i < N && !(rec[t].addresses & BIT(i)) -> i++
     :: else -> break
     od;
     i = 0
  :: else
  fi;
  forget(t)
}

inline end_transaction(t) { /* RecoveryService.end_transaction */
  find(t);
  if :: state == PENDING -> abort(t); find(t) :: else fi;
  if :: state == COMMITTED || state == ABORTED -> finish(t) :: else fi
}

/* Reading an address before writing it: `blocked` if a pending transaction has marked it. */

inline look_up(k) { /* IPReader.get, IPReader.find, RecoveryService.resolve */
  blocked = false;
  do
  :: read(k);
#ifndef IGNORE_MARKS
     if
     :: mark ->
        met = mark;
        find(met);
        if
        :: state == PENDING && rec[met].orphan -> end_transaction(met)
        :: state == PENDING && !rec[met].orphan -> blocked = true; break
        :: (state == COMMITTED && rec[met].action == GIVE) || (state == ABORTED && rec[met].action == TAKE) ->
           decided(met, k);  /* RecoveryService._apply */
           /* a change by a Kazoo node is left as it is */
           if :: mark == met && (holder != rec[met].account || (rec[met].action == TAKE && by != met)) -> break :: else fi
        :: else -> break
        fi
     :: else -> break
     fi
#else
     break
#endif
  od
}

/* Requests for several addresses. */

#define MAY_DIE if :: skip :: t == 1 -> rec[t].orphan = true; goto out fi

inline write_one(j) { /* PoolWriter.write */
  todo = todo & ~BIT(j);
  if
  :: put(j, revision[j], target, t, t, ok);
     if :: ok -> done = done | BIT(j); revision[j]++ :: else -> lost = lost | BIT(j) fi
#ifndef RECORD_AFTER_WRITES
  :: atomic { /* no reply, and the outcome stays unknown */
       t == 1 && !flown ->
       flown = true; flight.on = true; flight.at = j; flight.rev = revision[j]; flight.mark = t;
       flight.holder = target; unknown = unknown | BIT(j)
     }
#endif
  fi;
  MAY_DIE
}

inline prepare() { /* TransactionService.prepare */
  do
  :: todo & 1 -> write_one(0)
  :: todo & 2 -> write_one(1)
#if N > 2
  :: todo & 4 -> write_one(2)
#endif
  :: !todo -> break
  od
}

inline make_available() { /* TransactionService.make_available, PoolWriter.make_available */
  i = 0;
  do
  :: i < N && (done & BIT(i)) -> put(i, revision[i], FREE, 0, t, ok); MAY_DIE; i++
  :: i < N && !(done & BIT(i)) -> i++
  :: else -> break
  od;
  i = 0
}

inline roll_back() { /* TransactionService.roll_back */
  if :: unknown -> end_transaction(t)
     :: else -> make_available(); forget(t) /* TransactionService.abandon */
  fi
}

inline roll_forward() { /* TransactionService._roll_forward, IPRepository.save_all */
  i = 0; todo = done;
  do
  :: i < N && (done & BIT(i)) ->
     atomic {
       put(i, revision[i], FREE, 0, t, ok);
       if :: ok -> freed[t] = freed[t] | BIT(i); todo = todo & ~BIT(i) :: else fi
     }
     MAY_DIE;
     i++
  :: i < N && !(done & BIT(i)) -> i++
  :: else -> break
  od;
  i = 0;
  if :: !todo -> forget(t)  /* TransactionService._close, TransactionService.forget, TransactionService._delete_ended */
     :: else -> end_transaction(t) /* TransactionService._end_later */
  fi
}

#define LOCALS byte seen, holder, mark, by, version, i, k, met; mtype:decision state; bool ok, blocked

proctype Several(byte t; mtype:kind action; byte account; byte wanted) {
  LOCALS; byte revision[N]; byte todo, done, lost, unknown, more, target;

  atomic {
  target = (action == TAKE -> account : GIVEN);

  k = 0;
  do
  :: k < N && (wanted & BIT(k)) ->
     if :: action == TAKE && N > 2 -> read(k) :: else -> look_up(k) fi; /* AllocationService._try reads only */
     if :: blocked || (action == TAKE && holder != FREE) || (action == GIVE && holder != account) ->
           told[t] = REFUSED; goto out
        :: else
     fi;
     revision[k] = seen; k++
  :: k < N && !(wanted & BIT(k)) -> k++
  :: else -> break
  od;
  k = 0;
  todo = wanted;
#ifndef RECORD_AFTER_WRITES
  begin(t, action, account, wanted);
  MAY_DIE;
  prepare();
#else
  prepare();
  begin(t, action, account, wanted);
#endif

#ifdef ALLOCATE
  if
  :: action == TAKE && lost && !unknown -> /* AllocationService._take: another address instead */
     more = 4; todo = 0;
     read(2);
     if
     :: holder == FREE ->
        revision[2] = seen; todo = more;
#ifndef EXTEND_AFTER_WRITE
        extend(t, more);
        if :: !ok -> end_transaction(t); told[t] = UNSURE; goto out :: else fi;
        MAY_DIE;
        prepare()
#else
        prepare();
        extend(t, more);
        if :: !ok -> end_transaction(t); told[t] = UNSURE; goto out :: else fi
#endif
     :: else
     fi;
     if :: todo == 0 && (done == 5 || done == 6) -> lost = 0 :: else fi
  :: else
  fi;
#endif

  if
#ifndef COMMIT_UNPREPARED
  :: lost || unknown ->
     if
#ifndef FREE_BEFORE_COMMIT
     :: action == TAKE -> roll_back()         /* TransactionService.assign */
     :: action == GIVE -> forget(t)           /* TransactionService.release, TransactionService.abandon */
#else
     :: true -> i = 0;                        /* the release is rolled back */
        do :: i < N -> if :: done & BIT(i) -> put(i, revision[i], account, 0, t, ok) :: else fi; i++ :: else -> break od;
        i = 0; forget(t)
#endif
     fi;
     told[t] = (unknown -> UNSURE : REFUSED)
#endif
  :: else ->
#ifdef FORGET_BEFORE_FINISH
     if
     :: action == GIVE -> commit(t, done); if :: ok -> forget(t); MAY_DIE; roll_forward(); told[t] = DONE; goto out :: else fi
     :: else
     fi;
#endif
     commit(t, done);                         /* TransactionService._commit */
     if
     :: !ok -> end_transaction(t); told[t] = UNSURE  /* TransactionService._end_later */
     :: else ->
        MAY_DIE;
        if
        :: action == GIVE -> roll_forward()
        :: action == TAKE -> forget(t)        /* TransactionService.commit_assignment, TransactionService._close */
        fi;
        told[t] = DONE
     fi
  fi;
out:
  turn = 0
  }
}

/* Requests for one address. */

proctype AssignOne(byte q; byte account; byte a) { /* TransactionService.assign_one, TransactionService.write */
  LOCALS;
  atomic {
  look_up(a);
  if
  :: blocked || holder != FREE -> told[q] = REFUSED
  :: else ->
     atomic {
       put(a, seen, account, 0, q, ok);
       if :: ok -> owned[a] = account; told[q] = DONE :: else -> told[q] = REFUSED fi
     }
  fi;
  goto out;
out:
  turn = 0
  }
}

proctype ReleaseOne(byte q; byte account; byte a) { /* TransactionService.release_one */
  LOCALS;
  atomic {
  look_up(a);
  if
  :: blocked || holder != account -> told[q] = REFUSED
  :: else ->
     atomic {
       STEP;
       if :: doc[a].rev == seen -> owned[a] = FREE :: else fi;
       apply(a, seen, FREE, 0, q, ok);
       told[q] = (ok -> DONE : REFUSED)
     }
  fi;
  goto out;
out:
  turn = 0
  }
}

/* Other processes. */

proctype Housekeeping(byte t) { /* RecoveryService.recover */
  LOCALS;
  atomic {
  if :: rec[t].orphan && rec[t].state != GONE -> end_transaction(t) :: skip fi;
  goto out;
out:
  turn = 0
  }
}

inline deliver() { /* the write without a reply arrives */
  atomic {
    seen = flight.rev; holder = flight.holder; mark = flight.mark; k = flight.at; flight.on = false;
    apply(k, seen, holder, mark, mark, ok);
    k = 0; seen = 0; holder = 0; mark = 0
  }
}

proctype Operator(byte a; byte account) { /* on a Kazoo node: kz_ip:release, kz_ip:assign; unknown fields stay */
  LOCALS;
  atomic {
    read(a);
    if :: holder != X -> goto out :: else fi;
    STEP;
    if :: doc[a].rev == seen -> owned[a] = FREE; meddled[a] = true :: else fi;
    apply(a, seen, FREE, mark, 5, ok);
    if :: !ok -> goto out :: else fi;
    STEP;
    if :: doc[a].rev == seen + 1 -> owned[a] = account :: else fi;
    seen++;
    apply(a, seen, account, mark, 5, ok);
    goto out;
out:
    turn = 0
  }
}

inline has(k, account_) { doc[k].holder = account_; owned[k] = account_ }

init {
  LOCALS; byte t; byte q;
  atomic {
#ifdef RELEASE
    has(0, X); has(1, X);
    run Several(1, GIVE, X, 3); run ReleaseOne(3, X, 0); run AssignOne(4, Y, 1); run Housekeeping(1);
#endif
#ifdef ASSIGN
    run Several(1, TAKE, X, 3); run Several(2, TAKE, Y, 3); run Housekeeping(1);
#endif
#ifdef ALLOCATE
    has(2, Y);
    run Several(1, TAKE, X, 3); run AssignOne(3, X, 1); run ReleaseOne(4, Y, 2); run Housekeeping(1);
#endif
#ifdef BOTH
    has(0, X); has(1, X);
    run Several(1, GIVE, X, 3); run Several(2, TAKE, Y, 3); run Housekeeping(1);
#endif
#ifdef KAZOO
    has(0, X); has(1, X);
    if :: run Several(1, GIVE, X, 3)
       :: doc[0].holder = FREE; doc[1].holder = FREE; owned[0] = FREE; owned[1] = FREE; run Several(1, TAKE, X, 3)
    fi;
    run AssignOne(3, Y, 0); run Housekeeping(1);
    if :: run Operator(0, Z) :: skip fi;
#endif
  }
  do
  :: atomic { turn == 0 && waiting[1] -> turn = 1 }
  :: atomic { turn == 0 && waiting[2] -> turn = 2 }
  :: atomic { turn == 0 && waiting[3] -> turn = 3 }
  :: atomic { turn == 0 && waiting[4] -> turn = 4 }
  :: atomic { turn == 0 && waiting[5] -> turn = 5 }
  :: atomic { turn == 0 && flight.on -> deliver() }
  :: atomic { turn == 0 && rec[1].state == PENDING && !rec[1].orphan -> rec[1].orphan = true } /* taken for dead */
  :: atomic { turn == 0 && rec[1].state == COMMITTED && !rec[1].orphan -> rec[1].orphan = true }
  :: turn == 0 && _nr_pr == 1 -> break
  od;
  /* At the end every process is known to be dead. */
  rec[1].orphan = true; rec[2].orphan = true;
  t = 1;
  do :: t < 3 -> if :: rec[t].state != NONE && rec[t].state != GONE -> end_transaction(t) :: else fi; t++ :: else -> break od;
  goto out;
out:
  if :: flight.on -> deliver() :: else fi;
  atomic {
    t = 1;
    do
    :: t < 3 && rec[t].state != NONE ->
       assert(rec[t].state == GONE);                                  /* every record is deleted in the end */
       k = 0;
       do
       :: k < N ->
          /* a transaction that is not committed has assigned and released nothing */
          assert(!(told[t] == REFUSED) || rec[t].action == TAKE || freed[t] == 0);
          assert(!(doc[k].by == t && doc[k].holder == X && rec[t].action == TAKE) || owned[k] == doc[k].holder || meddled[k]);
          /* a decision stays, unless the account itself releases the address */
          assert(owned[k] == FREE || doc[k].holder == owned[k]);
          assert(owned[k] != FREE || doc[k].holder == FREE || meddled[k]);
          k++
       :: else -> break
       od;
       /* all or none */
       assert(rec[t].action == TAKE || freed[t] == 0 || freed[t] == 3 || meddled[0]);
       assert(!(told[t] == DONE && rec[t].action == GIVE) || freed[t] == 3 || meddled[0]);
       t++
    :: t < 3 && rec[t].state == NONE -> t++
    :: else -> break
    od
  }
}
