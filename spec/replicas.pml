/* Several accounts assign one address on a cluster of three copies. Two copies are a majority.

   A write reaches each copy now, later or never. A copy accepts it if the parent revision is a leaf there.
   Copies are replicated at any time. A read of all leaves queries all copies and gets at least two responses; a simple
   read needs two copies that agree. A writer may die between any two database requests. */

#ifndef WRITERS
#define WRITERS 2
#endif
#define REVISIONS 12
#ifdef LAGGING
#define BASE 1           /* the revision that the writers have read */
#else
#define BASE 0
#endif
#define FREE 0           /* content of a revision: the address is available, */
#define TOMB 9           /* it was withdrawn (a tombstone), or the account that has it: 1, 2, 3 */
#define NOTHING 15
#define BIT(v) (1 << (v))

mtype:outcome = { DONE, ACCEPTED, REFUSED, UNANSWERED };    /* 201, 202, 409, no reply */
mtype:fate = { HAS, LOST, UNDONE, UNKNOWN };

short known[3];          /* the revisions that each copy has */
byte parent[REVISIONS];
byte says[REVISIONS];
short children[REVISIONS];
byte generation[REVISIONS];
byte count = 1;
byte late[4];            /* copies at which a write of each account may still arrive */
byte late_revision[4];
mtype:fate told[4];

/* Limits on the faults of one run. */
#ifndef LOSSES
#define LOSSES 2         /* writes that do not reach a copy */
#endif
byte losses, silent, partial, replicated;
#define MISSED skip      /* what is written as replication writes it may miss any copies: */
#ifdef REFUSALS          /* with these two, each time counts as a loss, so that the search ends in time */
#define MISSED losses < LOSSES -> losses++
#endif
#ifdef WITHDRAWN
#define MISSED losses < LOSSES -> losses++
#endif

byte turn;
bool waiting[5];
#define STEP waiting[_pid] = true; turn = 0; (turn == _pid); waiting[_pid] = false

/* Trees of revisions. */

#define IS_LEAF(tree, v) (((tree) & BIT(v)) && !((tree) & children[v]))

inline make(p, what, v) { /* equal content on the same parent gives the same revision */
  v = 1;
  do
  :: v < count && !(parent[v] == p && says[v] == what) -> v++
  :: else -> break
  od;
  if :: v == count ->
        assert(count < REVISIONS);
        parent[v] = p; says[v] = what; generation[v] = generation[p] + 1; children[p] = children[p] | BIT(v); count++
     :: else
  fi
}

inline look(tree) { /* of a tree: the live leaves, the winner, their number, the latest tombstone */
  alive = 0; winner = NOTHING; number = 0; tomb = NOTHING; j = 0;
  do
  :: j < count ->
     if
     :: IS_LEAF(tree, j) && says[j] != TOMB ->
        alive = alive | BIT(j); number++;
        if :: winner == NOTHING || generation[j] >= generation[winner] -> winner = j :: else fi
     :: IS_LEAF(tree, j) && says[j] == TOMB ->
        if :: tomb == NOTHING || generation[j] >= generation[tomb] -> tomb = j :: else fi
     :: else
     fi;
     j++
  :: else -> break
  od;
  j = 0
}

/* Database requests. */

inline arrive(c, v, taken) {
  if :: IS_LEAF(known[c], parent[v]) && !(known[c] & BIT(v)) -> known[c] = known[c] | BIT(v); taken++
     :: else -> refused = true
  fi
}

inline save(p, what, v) { /* IPRepository.save, IPRepository.withdraw, IPRepository.drop */
  STEP;
  make(p, what, v);
  accepted = 0; refused = false; c = 0;
  do
#ifdef REFUSALS
  :: c < 3 ->
     if :: arrive(c, v, accepted)
        :: losses < LOSSES ->
           losses++;
           if :: what == me && p == base -> late[me] = late[me] | BIT(c); late_revision[me] = v :: else fi
     fi;
     c++
#else
  :: c < 3 -> if :: arrive(c, v, accepted) :: losses < LOSSES -> losses++ fi; c++
#endif
  :: else -> break
  od;
  c = 0;
#ifdef ACCEPTED_IS_DONE
#define QUORUM 1
#else
#define QUORUM 2
#endif
  if :: accepted >= QUORUM -> outcome = DONE
     :: accepted == 1 && accepted < QUORUM -> outcome = ACCEPTED
     :: accepted == 0 && refused -> outcome = REFUSED
     :: accepted == 0 && !refused -> outcome = UNANSWERED
     :: silent < 1 -> silent++; outcome = UNANSWERED
  fi;
  if :: outcome != UNANSWERED && late_revision[me] == v -> late[me] = 0 :: else fi; /* all copies have replied, or are down */
  printf("%d writes revision %d after %d, saying %d: %e; known are %x %x %x, late at %x\n",
         me, v, p, what, outcome, known[0], known[1], known[2], late[me]);
  accepted = 0; refused = false
}

inline leaves() { /* IPRepository.leaves */
  STEP;
  if :: tree = known[0] | known[1] | known[2]
     :: partial < 1 -> partial++; if :: tree = known[0] | known[1] :: tree = known[0] | known[2] :: tree = known[1] | known[2] fi
#ifdef MINORITY_READS
     :: partial < 2 -> partial++; if :: tree = known[0] :: tree = known[1] :: tree = known[2] fi
#endif
  fi;
  look(tree);
  printf("%d reads %x, of which %x are alive\n", _pid, tree, alive);
  shown = tree; tree = 0
}

inline read() { /* IPReader.get, IPRepository.get */
  STEP;
  if :: c = 0 :: c = 1 :: c = 2 fi;
  look(known[c]); i = winner; tree = number;
  c = (c + 1) % 3;
  look(known[c]);
  if :: winner == i -> if :: number = tree :: skip fi /* the first of the two shows its conflicts, or none */
     :: else -> tree = known[0] | known[1] | known[2]; look(tree)
  fi;
  printf("%d reads revision %d of %d\n", _pid, winner, number);
  c = 0; i = 0; tree = 0
}

/* How the service uses them. */

inline graft(c_, v) { if :: known[c_] = known[c_] | BIT(v) | BIT(parent[v]) :: MISSED fi }

inline restore(t) { /* IPRepository.restore */
  STEP;
  make(t, FREE, v);
  graft(0, v); graft(1, v); graft(2, v);
  printf("%d restores %d after %d; known are %x %x %x\n", _pid, v, t, known[0], known[1], known[2])
}

inline bring_back() { /* ConflictResolver.resolve, ConflictResolver._restore_lost */
  leaves();
  if
  :: !alive && tomb != NOTHING ->
#ifndef RESTORE_BLINDLY
     /* IPRepository.spread: first a majority gets the tombstone, so that no write on the base revision succeeds */
     STEP;
     c = 0; accepted = 0;
     do
     :: c < 3 -> if :: known[c] = known[c] | BIT(tomb) | BIT(parent[tomb]); accepted++ :: MISSED fi; c++
     :: else -> break
     od;
     c = 0; i = accepted; accepted = 0;
     if
     :: i >= 2 -> i = tomb; leaves(); if :: !alive && tomb == i -> restore(i) :: else fi
     :: else
     fi;
     i = 0
#else
     i = tomb; restore(i); i = 0
#endif
  :: else
  fi
}

/* PoolWriter._certain */
#ifdef UNSEEN_IS_UNDONE
#define SURE(what) what
#else
#define SURE(what) (unsure -> UNKNOWN : what)
#endif

#ifdef OWN_IS_RIVAL
#define OWN(j) false
#else
#define OWN(j) (says[j] == me)
#endif

inline forget() { /* what was read, so that equal states are equal */
  alive = 0; shown = 0; winner = 0; number = 0; tomb = 0; j = 0; c = 0; rival = false; reached = false; outcome = 0
}

inline judged() { /* Leaves.supersede, Leaves.reach: what the copies that answered know of the base revision */
  rival = false; reached = false; j = 0;
  do
  :: j < count ->
     if
     :: IS_LEAF(shown, j) && generation[j] >= generation[base] ->
        reached = true;
        if :: says[j] != TOMB && generation[j] > generation[base] -> rival = true :: else fi
     :: else
     fi;
     j++
  :: else -> break
  od;
  j = 0;
#ifdef ABSENT_IS_LOST
  reached = true; rival = (alive != 0);
#endif
  if :: (alive & BIT(base)) -> rival = false :: else fi
}

inline withdrawn_unseen(v) { /* IPRepository.withdraw_unseen: the path of the revision is not written */
  STEP;
  c = 0; accepted = 0;
  do
  :: c < 3 -> if :: known[c] = known[c] | BIT(v); accepted++ :: MISSED fi; c++
  :: else -> break
  od;
  c = 0; fine = (accepted > 0); accepted = 0;
  printf("%d writes %d as replication does; known are %x %x %x\n", me, v, known[0], known[1], known[2])
}

inline withdrawn(p) { /* PoolWriter._withdrawn, PoolWriter._withdraw */
  i = p; left = 0;
  do
  :: left < 2 ->
     left++;
     if
     :: i < count ->
        save(i, TOMB, v);
        refused_at = (outcome == DONE || outcome == ACCEPTED -> 0 : v)
     :: else
     fi;
     leaves();
     judged();
     alive = alive & ~BIT(base);
     do /* which revision of the writer is left: its write, or the fence */
     :: j < count && !((alive & BIT(j)) && (j == i || OWN(j))) -> j++
     :: else -> break
     od;
     i = j; j = 0;
     if :: i == count && reached -> break
        :: i == count && !reached -> i = (refused_at -> parent[refused_at] : count)
        :: else
     fi
  :: else -> told[me] = UNKNOWN; goto out
  od;
  i = 0; v = 0; left = 0; again = 0; claim = 0;
#ifndef REFUSED_IS_WITHDRAWN
  if :: refused_at -> withdrawn_unseen(refused_at); if :: !fine -> told[me] = UNKNOWN; goto out :: else fi :: else fi;
#endif
  if :: rival -> told[me] = SURE(LOST)
     :: else -> bring_back(); told[me] = SURE(UNDONE) /* PoolWriter._without */
  fi
}

inline ours(v) { /* the account's own live leaf */
  v = 1;
  do :: v < count && !((alive & BIT(v)) && says[v] == me) -> v++ :: else -> break od;
  if :: v == count -> v = NOTHING :: else fi
}

inline confirmed(p) { /* PoolWriter._confirmed, PoolWriter.confirm */
#ifndef NO_CONFIRM
  save(p, me, again);
  fine = (outcome == DONE); unsure = (outcome == UNANSWERED);
  if :: outcome != DONE && outcome != ACCEPTED -> again = p :: else fi;
  leaves();
#ifdef CONFIRM_RESTORED
  rival = false;
#else
  rival = (tomb != NOTHING && generation[tomb] > generation[base]); /* perhaps the address is being restored */
#endif
  if :: fine && number == 1 && !rival -> told[me] = HAS
     :: else -> withdrawn(again)
  fi
#else
  told[me] = HAS
#endif
}

proctype Assign(byte me) { /* TransactionService.assign_one, PoolWriter.write */
  short tree, alive, shown; byte base, claim, again, v, i, j, c, winner, number, tomb, accepted, tries, left, refused_at;
  bool refused, fine, rival, reached, unsure;
  mtype:outcome outcome;
  atomic {
  winner = BASE; number = 1; /* the state before the race */
#ifdef LATECOMER
  if :: me == WRITERS -> read() :: else fi;
#endif
  if :: winner == NOTHING && tomb != NOTHING -> bring_back(); read() :: else fi;  /* IPReader._restored */
  if :: winner == NOTHING || number > 1 || says[winner] != FREE -> told[me] = LOST; goto out :: else fi;
  base = winner;
  save(base, me, claim);
  if
  :: outcome == DONE -> told[me] = HAS; goto out
#ifndef NO_WITHDRAWAL
  :: outcome == ACCEPTED -> withdrawn(claim); goto out
#else
  :: outcome == ACCEPTED -> told[me] = LOST; goto out
#endif
  :: else
  fi;
  if :: skip :: goto out fi; /* dies */
  unsure = (outcome == UNANSWERED); /* then a copy that does not answer now may have the write */
  do /* PoolWriter._find_out */
  :: tries < 2 ->
     tries++;
     leaves();
     ours(v);
     if
     :: v != NOTHING && number == 1 -> claim = v; v = 0; confirmed(claim); goto out
     :: v != NOTHING && number > 1 -> claim = v; v = 0; withdrawn(claim); goto out
     :: v == NOTHING && number == 1 && says[winner] == FREE && parent[winner] == base -> base = winner /* an earlier fence */
     :: else ->
        judged();
#ifdef REFUSED_IS_LOST
        if :: !unsure -> rival = true :: else fi;
#endif
        if :: rival -> told[me] = SURE(LOST); goto out :: else fi
     fi;
     v = 0; forget();
#ifndef NO_FENCE
     save(base, FREE, again);
     if :: outcome == DONE -> told[me] = UNDONE; goto out
        :: outcome == ACCEPTED -> withdrawn(again); goto out
        :: else
     fi
#else
     told[me] = UNDONE; goto out
#endif
  :: else -> told[me] = UNKNOWN; goto out
  od;
out:
  printf("%d is told %e\n", me, told[me]);
  forget(); base = 0; claim = 0; again = 0; v = 0; i = 0; left = 0; tries = 0; fine = false; unsure = false; refused_at = 0;
  turn = 0
  }
}

inline deliver(w) {
  c = 0;
  do
  :: c < 3 -> if :: (late[w] & BIT(c)) -> if :: arrive(c, late_revision[w], accepted); late[w] = late[w] & ~BIT(c) :: skip fi :: else fi; c++
  :: else -> break
  od;
  printf("late arrival of %d; known are %x %x %x\n", late_revision[w], known[0], known[1], known[2]);
  c = 0; accepted = 0; refused = false
}

init {
  short tree, alive, shown; byte c, i, j, v, winner, number, tomb, accepted; bool refused;
  atomic {
    known[0] = 1; known[1] = 1; known[2] = 1; says[0] = FREE; parent[0] = NOTHING;
#ifdef LAGGING
    /* An account has released the address, and copies do not have that yet. */
    says[0] = 3; says[1] = FREE; parent[1] = 0; children[0] = BIT(1); generation[1] = 1; count = 2;
    known[0] = 3;
    if :: known[1] = 3 :: skip fi;
#endif
#ifdef WITHDRAWN
    /* One copy has the write of a third account, and its withdrawal. */
    says[1] = 3; parent[1] = 0; children[0] = BIT(1); generation[1] = 1;
    says[2] = TOMB; parent[2] = 1; children[1] = BIT(2); generation[2] = 2; count = 3;
    known[0] = 7;
#endif
    run Assign(1);
#if WRITERS > 1
    run Assign(2);
#endif
#if WRITERS > 2
    run Assign(3)
#endif
  }
  do
  :: atomic { turn == 0 && waiting[1] -> turn = 1 }
  :: atomic { turn == 0 && waiting[2] -> turn = 2 }
  :: atomic { turn == 0 && waiting[3] -> turn = 3 }
  :: atomic { turn == 0 && late[1] -> deliver(1) }
  :: atomic { turn == 0 && late[2] -> deliver(2) }
  :: atomic { turn == 0 && late[3] -> deliver(3) }
  :: atomic { turn == 0 && replicated < 1 && (known[0] | known[1]) != known[1] -> replicated++; known[1] = known[0] | known[1] }
  :: atomic { turn == 0 && replicated < 1 && (known[1] | known[2]) != known[2] -> replicated++; known[2] = known[1] | known[2] }
  :: atomic { turn == 0 && replicated < 1 && (known[2] | known[0]) != known[0] -> replicated++; known[0] = known[2] | known[0] }
  :: turn == 0 && _nr_pr == 1 -> break
  od;
  /* Later all copies know the same, and what is in disorder is settled: ConflictResolver.resolve, ConflictResolver.is_acknowledged */
  atomic {
    if :: late[1] -> deliver(1) :: else fi; if :: late[2] -> deliver(2) :: else fi; if :: late[3] -> deliver(3) :: else fi;
    tree = known[0] | known[1] | known[2];
    look(tree);
    assert(alive || tomb != NOTHING);                                    /* the address is not lost */
    accepted = (told[1] == HAS) + (told[2] == HAS) + (told[3] == HAS);
    assert(accepted <= 1);                                               /* one owner at most */
    c = 1;
    do
    :: c < 4 ->
       /* whether this account has the address: of conflicting leaves the acknowledged one wins, otherwise none */
       i = (number == 1 && says[winner] == c);
       j = 0;
       do
       :: j < count -> if :: number > 1 && (alive & BIT(j)) && says[j] == c && told[c] == HAS -> i = 1 :: else fi; j++
       :: else -> break
       od;
       assert(told[c] != HAS || i);                                      /* an acknowledged assignment stays */
#ifdef REFUSALS
#if WRITERS == 1
       assert(told[c] != LOST);                                          /* only another writer can have won */
#endif
       assert(!(told[c] == UNDONE || told[c] == LOST) || !i);            /* a refused assignment has no effect */
#endif
       c++
    :: else -> break
    od
  }
}
