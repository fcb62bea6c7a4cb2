/* A request with an Idempotency-Key on a single node: the first attempt is cut off while the retry runs.

   The kind of request is ASSIGN (one address), ALLOCATE (one of two addresses) or RELEASE (two addresses). The first
   attempt dies between any two of its database requests. The last of them may arrive at any later time, or never. An
   attempt that has a record may also go on although it is taken for dead. Another request writes concurrently. */

#define FREE 0
#define X 1
#define Y 2
#define N 2
#define NONE 0

mtype:decision = { PENDING, COMMITTED, ABORTED, GONE };
mtype:answer = { DONE, REFUSED, UNSURE };

/* `mark` is the attempt whose record decides about the document. `event` is true if the document's trail has an event of
   the request. */
typedef Document { byte rev = 1; byte holder; byte mark; bool event };
typedef Record { mtype:decision state; byte rev; byte addresses; bool finished };
typedef Flight { bool on; byte at; byte rev; byte holder; byte mark; byte effect };

Document doc[N];
Record rec[3];           /* of each attempt */
Flight flight;           /* the last database request of an attempt that was cut off */
byte key_attempt;        /* the key's record: number of attempts started */
mtype:answer reply;      /* the stored reply */
mtype:answer told[3];    /* the reply of each attempt */
bool dead;               /* the first attempt is dead, or taken for dead */

/* Variables that only the properties use. */
byte did;                /* how often the request has changed the pool */

byte turn;
bool waiting[5];
#define STEP waiting[_pid] = true; turn = 0; (turn == _pid); waiting[_pid] = false
#define LOCALS byte seen, holder, mark, k, n, version, taken, left; bool ok, event; mtype:decision state

#define PLAIN 0  /* the write does not change the request's effect, */
#define DO 1     /* it applies the effect, */
#define UNDO 2   /* or it rolls the effect back */

inline apply(j, r, h, m, e, ok_) {
  if
  :: doc[j].rev == r ->
     if :: e == DO -> did++; doc[j].event = true
        :: e == UNDO -> did--; doc[j].event = false
        :: else
     fi;
     doc[j].rev++; doc[j].holder = h; doc[j].mark = m; ok_ = true
  :: else -> ok_ = false
  fi
}

/* The first attempt may be cut off at each of its writes. That write arrives now, later or never. */
inline put(j, r, h, m, e) { /* PoolWriter.write, IPRepository.save */
  STEP;
  if
  :: apply(j, r, h, m, e, ok)
  :: attempt == 1 ->
     dead = true; flight.on = true; flight.at = j; flight.rev = r; flight.holder = h; flight.mark = m; flight.effect = e;
     goto out
  fi
}
inline read(j) { STEP; seen = doc[j].rev; holder = doc[j].holder; mark = doc[j].mark; event = doc[j].event } /* IPReader.get */
#define MAY_DIE if :: skip :: attempt == 1 -> dead = true; goto out fi

/* Records. */

inline find(t) { STEP; state = rec[t].state; version = rec[t].rev; left = rec[t].addresses } /* TransactionLog.find */
inline decide(t, to, written) {
  STEP;
  if :: rec[t].state == PENDING && rec[t].rev == version ->
        rec[t].state = to; rec[t].rev++; version = rec[t].rev; rec[t].addresses = written; ok = true
     :: else -> ok = false
  fi
}
inline begin(t, wanted) { /* TransactionService.begin, TransactionLog.begin */
  STEP;
  if :: rec[t].state == NONE || rec[t].state == GONE ->
        rec[t].state = PENDING; rec[t].rev++; version = rec[t].rev; rec[t].addresses = wanted; ok = true
     :: else -> ok = false
  fi
}
inline fence(t) { /* TransactionLog.fence */
  STEP;
  if :: rec[t].state == NONE || rec[t].state == GONE -> rec[t].state = ABORTED; rec[t].rev++; rec[t].finished = true; ok = true
     :: else -> ok = false
  fi
}
inline finish(t) { /* RecoveryService.finish, RecoveryService._finish_documents */
  k = 0;
  do
  :: k < N && (left & (1 << k)) && !rec[t].finished ->
     read(k);
     ok = true;
     if
#ifdef RELEASE
     :: state == COMMITTED && mark == t -> STEP; apply(k, seen, FREE, 0, DO, ok)
#else
     :: state == ABORTED && mark == t && holder == X -> STEP; apply(k, seen, FREE, 0, UNDO, ok)
#ifndef NO_FENCE
     :: state == ABORTED && holder == FREE -> STEP; apply(k, seen, FREE, 0, PLAIN, ok)
#endif
#endif
     :: else
     fi;
     if :: ok -> k++ :: else fi
  :: k < N && !((left & (1 << k)) && !rec[t].finished) -> k++
  :: else -> break
  od;
  k = 0;
  STEP; rec[t].finished = true /* TransactionLog.finish */
}
inline end_transaction(t) { /* RecoveryService.end_transaction */
  find(t);
  if :: state == PENDING -> decide(t, ABORTED, left); find(t) :: else fi;
  if :: (state == COMMITTED || state == ABORTED) && !rec[t].finished -> finish(t) :: else fi
}

inline end_attempts() { /* RecoveryService.end_attempts */
#ifndef NO_SETTLING
  if
  :: attempt == 2 ->
     find(1);
     ok = true;
     if :: state == NONE || state == GONE -> fence(1)
        :: state == PENDING -> decide(1, ABORTED, left) /* TransactionLog.abort */
        :: else
     fi;
     find(1);
     if :: state == NONE || state == GONE || state == PENDING -> told[attempt] = UNSURE; goto out :: else fi;
     finish(1);
     if :: state == COMMITTED -> told[attempt] = DONE; goto ended :: else fi /* Resumption.of_transaction */
  :: else
  fi
#else
  skip
#endif
}

/* The reply is stored, unless another attempt has started. Then the transaction record may be deleted. */
inline end_attempt() { /* IdempotencyService.finish, IdempotencyService.abandon, IdempotencyService._put */
  STEP;
  if
  :: told[attempt] == UNSURE -> dead = (attempt == 1 -> true : dead)
  :: told[attempt] != UNSURE && key_attempt == attempt -> reply = told[attempt]; dead = (attempt == 1 -> true : dead);
     STEP; if :: rec[attempt].state == COMMITTED -> rec[attempt].state = GONE :: else fi /* TransactionService.forget */
  :: told[attempt] != UNSURE && key_attempt != attempt ->
#ifdef FORGET_OF_OTHERS
     STEP; if :: rec[attempt].state == COMMITTED -> rec[attempt].state = GONE :: else fi
#else
     skip
#endif
  fi
}

proctype Request(byte attempt) {
  LOCALS; byte revision[N];
  atomic {
  STEP;
  if /* IdempotencyService.begin: the second waits until the first is dead or taken for dead */
  :: attempt == 1 -> key_attempt = 1
  :: attempt == 2 -> (dead || reply); if :: reply -> told[2] = reply; goto out :: else -> key_attempt = 2 fi
  fi;
  MAY_DIE;

#ifdef ASSIGN
#ifndef LOOK_APART
  read(0);                                      /* IPService._assign, Resumption.assigned */
#else
  read(0);
  if :: attempt == 2 && !event -> read(0); event = false :: else fi;
#endif
  if
  :: attempt == 2 && event ->
#ifndef NO_CONFIRM
     if :: holder == X -> put(0, seen, X, 0, PLAIN); if :: !ok -> told[attempt] = UNSURE; goto ended :: else fi /* PoolWriter.confirm */
        :: else
     fi;
#endif
     told[attempt] = DONE
  :: else ->
     if
     :: holder == FREE ->
        put(0, seen, X, 0, DO);               /* TransactionService.assign_one */
        if
        :: !ok -> told[attempt] = REFUSED
        :: else ->
           MAY_DIE;
           if :: told[attempt] = DONE           /* TransactionService.acknowledge */
              :: attempt == 1 ->                /* the copy cannot be written */
                 put(0, seen + 1, FREE, 0, UNDO); /* PoolWriter.make_available, DedicatedIP.undo */
                 told[attempt] = UNSURE
           fi
        fi
     :: else -> told[attempt] = REFUSED
     fi;
     if
#ifndef LOOK_ONCE
     :: told[attempt] == REFUSED && attempt == 2 -> /* Resumption.once */
        read(0);
        if :: event && holder == X -> put(0, seen, X, 0, PLAIN); told[attempt] = (ok -> DONE : UNSURE)
           :: event && holder != X -> told[attempt] = DONE
           :: else
        fi
#endif
     :: else
     fi
  fi;
#endif

#ifdef ALLOCATE
  end_attempts();                            /* AllocationService.allocate */
  if :: k = 0 :: k = 1 fi;                      /* propose */
  read(k);
  if :: holder != FREE -> k = 1 - k; read(k) :: else fi;
  if :: holder != FREE -> told[attempt] = REFUSED; goto ended :: else fi;
  taken = 1 << k;
  begin(attempt, taken);
  if :: !ok -> told[attempt] = UNSURE; goto ended :: else fi;
  MAY_DIE;
  put(k, seen, X, attempt, DO);               /* TransactionService.prepare */
  MAY_DIE;
  if
  :: !ok -> STEP; if :: rec[attempt].rev == version -> rec[attempt].state = ABORTED; rec[attempt].finished = true :: else fi;
     told[attempt] = UNSURE                     /* TransactionService.abandon */
  :: else ->
     n = k;
     decide(attempt, COMMITTED, taken);         /* TransactionService._commit, TransactionLog.commit */
     if :: ok -> told[attempt] = DONE :: else -> end_transaction(attempt); told[attempt] = UNSURE fi
  fi;
#endif

#ifdef RELEASE
  end_attempts();                            /* IPService.release_all */
  read(0); if :: holder != X -> told[attempt] = REFUSED; goto ended :: else fi; revision[0] = seen;
  read(1); if :: holder != X -> told[attempt] = REFUSED; goto ended :: else fi; revision[1] = seen;
  begin(attempt, 3);
  if :: !ok -> told[attempt] = UNSURE; goto ended :: else fi;
  MAY_DIE;
  put(0, revision[0], X, attempt, PLAIN); n = ok;
  MAY_DIE;
  put(1, revision[1], X, attempt, PLAIN); n = n + ok;
  MAY_DIE;
  if
  :: n < 2 -> STEP; if :: rec[attempt].rev == version -> rec[attempt].state = ABORTED; rec[attempt].finished = true :: else fi;
     told[attempt] = REFUSED
  :: else ->
     decide(attempt, COMMITTED, 3);
     if
     :: !ok -> end_transaction(attempt); told[attempt] = UNSURE
     :: else ->
        MAY_DIE;
        put(0, revision[0] + 1, FREE, 0, DO); /* TransactionService._roll_forward */
        MAY_DIE;
        put(1, revision[1] + 1, FREE, 0, DO);
        told[attempt] = DONE
     fi
  fi;
#endif
ended:
  end_attempt();
  goto out;
out:
  turn = 0
  }
}

proctype Other() { /* another request: a release by X, or an assignment to Y */
  LOCALS;
  atomic {
  if :: k = 0 :: k = 1 fi;
  read(k);
  if
#ifndef RELEASE
  :: holder == X && mark == 0 -> STEP; apply(k, seen, FREE, 0, PLAIN, ok)
#endif
  :: holder == FREE -> STEP; apply(k, seen, Y, 0, PLAIN, ok)
  :: else -> ok = false
  fi;
  turn = 0
  }
}

inline deliver() {
  flight.on = false; k = flight.at; seen = flight.rev; holder = flight.holder; mark = flight.mark; n = flight.effect;
  apply(k, seen, holder, mark, n, ok); k = 0; seen = 0; holder = 0; mark = 0; n = 0
}

init {
  LOCALS;
  atomic {
#ifdef RELEASE
    doc[0].holder = X; doc[1].holder = X;
#endif
    run Request(1); run Request(2); run Other()
  }
  do
  :: atomic { turn == 0 && waiting[1] -> turn = 1 }
  :: atomic { turn == 0 && waiting[2] && (key_attempt == 0 || dead || reply || key_attempt == 2) && key_attempt -> turn = 2 }
  :: atomic { turn == 0 && waiting[3] -> turn = 3 }
  :: atomic { turn == 0 && flight.on -> deliver() }
#ifndef ASSIGN
  :: atomic { turn == 0 && key_attempt == 1 && !dead -> dead = true } /* taken for dead */
#endif
  :: turn == 0 && _nr_pr == 1 -> break
  od;
  if :: rec[1].state != NONE && rec[1].state != GONE -> end_transaction(1) :: else fi;
  if :: rec[2].state != NONE && rec[2].state != GONE -> end_transaction(2) :: else fi;
  goto out;
out:
  atomic {
    if :: flight.on -> deliver() :: else fi;
#ifdef RELEASE
    assert(did == 0 || did == 2);                          /* all or none, and only once */
    assert(reply != DONE || did == 2);
    assert(reply != REFUSED || did == 0);
    assert(told[1] != DONE || did == 2);
#else
    assert(did <= 1);                                      /* only once */
    assert(reply != DONE || did == 1);                       /* the final reply is true */
    assert(reply != REFUSED || did == 0);
    assert(told[1] != DONE || did == 1);
    assert(told[2] == UNSURE || told[2] == reply || told[2] == NONE);
#endif
    assert(rec[1].state != PENDING && rec[2].state != PENDING)
  }
}
