/* The decision of a transaction on a cluster of three copies of its record. Two copies are a majority.

   The owner commits. A worker that considers it dead aborts. Other workers read the record and act on what they find. A
   write reaches each copy or is lost there. A copy accepts it if the parent revision is a leaf there. Copies are
   replicated at any time, so that later a copy has both decisions. A read of all leaves gets at least two responses.

   It must hold: nobody acts on an abort if somebody acts on the commit. */

#ifndef WORKERS
#define WORKERS 1        /* of 2, with 2 losses, one may act on a commit and one on an abort: see docs/protocol.md */
#endif
#ifndef LOSSES
#define LOSSES 2         /* writes that do not reach a copy */
#endif
#ifndef COPIES
#define COPIES 2         /* replications from one copy to another one */
#endif
#define REVISIONS 14
#define PENDING 0        /* what a revision says */
#define COMMITTED 1
#define ABORTED 2
#define FINAL_ABORT 3
#define DROPPED 4
#define NOTHING 15
#define BIT(v) (1 << (v))
#define IS_LEAF(tree, v) (((tree) & BIT(v)) && !((tree) & children[v]))

short known[3] = 1;      /* the revisions that each copy has; revision 0 is pending */
byte parent[REVISIONS];
byte says[REVISIONS];
short children[REVISIONS];
byte count = 1;
byte losses, copied, partial;
bool committed, aborted; /* whether somebody has acted on the decision */

inline save(p, what) { /* Records.put: one write, whose outcome is done only if a majority has accepted it */
  atomic {
    assert(count < REVISIONS);
    v = count; count++;
    parent[v] = p; says[v] = what; children[p] = children[p] | BIT(v);
    accepted = 0; c = 0;
    do
    :: c < 3 ->
       if
       :: IS_LEAF(known[c], p) -> known[c] = known[c] | BIT(v); accepted++
       :: IS_LEAF(known[c], p) && losses < LOSSES -> losses++
       :: !IS_LEAF(known[c], p)
       fi;
       c++
    :: else -> break
    od;
    done = accepted >= 2; accepted = 0; c = 0
  }
}

inline leaves() { /* of the copies that answer */
  atomic {
    if :: tree = known[0] | known[1] | known[2]
       :: partial < 2 -> partial++; if :: tree = known[0] | known[1] :: tree = known[0] | known[2] :: tree = known[1] | known[2] fi
    fi;
    commit = NOTHING; abort = NOTHING; final_abort = NOTHING; c = 0;
    do
    :: c < count ->
       if
       :: IS_LEAF(tree, c) && says[c] == COMMITTED -> commit = c
       :: IS_LEAF(tree, c) && says[c] == ABORTED -> abort = c
       :: IS_LEAF(tree, c) && says[c] == FINAL_ABORT -> final_abort = c
       :: else
       fi;
       c++
    :: else -> break
    od;
    c = 0; tree = 0
  }
}

inline act_on_commit() { atomic { assert(!aborted); committed = true } }
inline act_on_abort() { atomic { assert(!committed); aborted = true } }

inline make_final() { /* TransactionLog.abort, after the first write */
#ifdef NOT_FINAL
  act_on_abort()
#else
  save(mine, FINAL_ABORT);
  if :: done -> act_on_abort() :: else fi
#endif
}

inline confirm_commit() { /* TransactionLog.confirm */
  save(commit, COMMITTED);
  if
  :: done ->
     leaves();
     if
     :: final_abort != NOTHING -> skip
#ifdef NO_DROP
     :: else -> act_on_commit()
#else
     :: final_abort == NOTHING && abort == NOTHING -> act_on_commit()
     :: final_abort == NOTHING && abort != NOTHING ->
        save(abort, DROPPED);
        if
        :: done -> act_on_commit()
        :: else
        fi
#endif
     fi
  :: else
  fi
}

inline confirm_abort() { /* TransactionLog.confirm */
  save(abort, ABORTED);
  if
  :: done ->
     mine = v;
     leaves();
#ifdef IGNORE_COMMIT
     make_final()
#else
     if :: commit == NOTHING -> make_final() :: else fi
#endif
  :: else
  fi
}

active proctype owner() {
  byte v, c, accepted; bool done;
  save(0, COMMITTED);                          /* TransactionLog.commit */
  if :: done -> act_on_commit() :: true fi     /* it may die, or get no answer */
}

active proctype aborter() {
  byte v, c, accepted, mine; bool done;
  save(0, ABORTED);                            /* TransactionLog.abort */
  mine = v;
  if :: done -> make_final() :: true fi
}

active [WORKERS] proctype worker() {           /* RecoveryService.finish: TransactionLog.find, TransactionLog.confirm */
  byte v, c, accepted, commit, abort, final_abort, mine; short tree; bool done;
  leaves();
  if
  :: final_abort != NOTHING -> act_on_abort()
  :: final_abort == NOTHING && commit != NOTHING -> confirm_commit()
  :: final_abort == NOTHING && commit == NOTHING && abort != NOTHING -> confirm_abort()
  :: else
  fi
}

active proctype replication() {
  byte from, to;
  do
  :: copied < COPIES ->
     atomic {
       if :: from = 0 :: from = 1 :: from = 2 fi;
       if :: to = 0 :: to = 1 :: to = 2 fi;
       known[to] = known[to] | known[from]; copied++
     }
  :: break
  od
}
