package poller

import (
	"cmp"
	"container/list"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// OverBudget is the name of the class that serves RAEs which send more events than
// their budget, and the reason of dead letters for the other budgets.
const OverBudget = "over-budget"

// overBudgetWeight is the weight of that class. The default class has DefaultWeight.
const overBudgetWeight = 1

const (
	maxAccounts = 10_000           // RAEs with an account of their own
	maxOffender = 10               // RAEs that a metric names
	offendedFor = 10 * time.Minute // how long it does, after the last record over a budget
	sessionIdle = 72 * time.Hour   // a session that was not heard of for so long is not open
	bucketOf    = 60 * time.Second // of events: the burst is what comes in so long
)

// Budgets bound what one RAE may make of the cloud. Each is of one RAE and one
// poller: a RAE's sessions are spread over the partitions. The time is that of
// the records, as Kafka has it: a backlog is judged as it was written.
type Budgets struct {
	// Sessions are open at most. Default 2,000.
	Sessions int
	// NewSessions come in an hour at most. Default 2,000: a poller that starts
	// meets every session as a new one.
	NewSessions int
	// Events come in a second, on average over a minute; beyond them the RAE's
	// lanes are of the class OverBudget. Default 100.
	Events int
	// DeadLetterBytes are dead-lettered whole in an hour; beyond them without
	// the value. Default 16 MiB.
	DeadLetterBytes int
}

func (b *Budgets) setDefaults() {
	or(&b.Sessions, 2000)
	or(&b.NewSessions, 2000)
	or(&b.Events, 100)
	or(&b.DeadLetterBytes, 16<<20)
}

// bucket is a token bucket: full at first, refilled by rate a nanosecond.
type bucket struct {
	tokens, size, rate float64
	at                 time.Time
}

func newBucket(size, perSecond float64) bucket {
	return bucket{tokens: size, size: size, rate: perSecond / float64(time.Second)}
}

func (b *bucket) take(n float64, at time.Time) bool {
	if at.After(b.at) {
		if !b.at.IsZero() {
			b.tokens = min(b.size, b.tokens+b.rate*float64(at.Sub(b.at)))
		}
		b.at = at
	}
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}

// account is what one RAE has used.
type account struct {
	rae                       string
	events, sessions, letters bucket
	open                      map[string]time.Time // sessions, by when they were last heard of
	offences                  int
	offended                  time.Time
	tooFast                   atomic.Bool // read by the scheduler without the ledger's lock
	place                     *list.Element
}

// ledger has the accounts of the RAEs that were heard of last.
//
// Invariant: it holds at most maxAccounts accounts and, over all, as many open
// sessions as fit them. RAEs beyond them, which can only be invented ones, share an
// account: they take nobody's place.
type ledger struct {
	budgets Budgets
	over    func(budget string, n int) // tells the metric

	mu       sync.Mutex
	accounts map[string]*account
	recent   *list.List // of *account, the last heard of first
	others   *account
	sessions int // open, of all accounts
}

// maxSessions bounds the open sessions that are remembered.
const maxSessions = 500_000

func newLedger(b Budgets, over func(string, int)) *ledger {
	l := &ledger{budgets: b, over: over, accounts: map[string]*account{}, recent: list.New()}
	l.others = l.newAccount("")
	return l
}

func (l *ledger) newAccount(rae string) *account {
	b := l.budgets
	return &account{
		rae:      rae,
		events:   newBucket(float64(b.Events)*bucketOf.Seconds(), float64(b.Events)),
		sessions: newBucket(float64(b.NewSessions), float64(b.NewSessions)/time.Hour.Seconds()),
		letters:  newBucket(float64(b.DeadLetterBytes), float64(b.DeadLetterBytes)/time.Hour.Seconds()),
		open:     map[string]time.Time{},
	}
}

func (l *ledger) accountLocked(rae string, at time.Time) *account {
	if rae == "" {
		return l.others
	}
	a := l.accounts[rae]
	if a == nil {
		if len(l.accounts) >= maxAccounts || l.sessions >= maxSessions {
			last := l.recent.Back()
			old := last.Value.(*account)
			if at.Sub(old.events.at) < sessionIdle {
				return l.others
			}
			l.recent.Remove(last)
			delete(l.accounts, old.rae)
			l.sessions -= len(old.open)
		}
		a = l.newAccount(rae)
		a.place = l.recent.PushFront(a)
		l.accounts[rae] = a
		return a
	}
	l.recent.MoveToFront(a.place)
	return a
}

// judge charges records to the accounts of their RAEs. One whose session is beyond
// a budget becomes bad.
func (l *ledger) judge(in []incoming, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range in {
		r := &in[i]
		if r.record.Attrs.IsControl() {
			continue
		}
		at := r.record.Timestamp
		if at.After(now) {
			at = now
		}
		rae := r.fold.RAE
		if r.bad != nil {
			if t, err := device.ParseTopic(string(r.record.Key)); err == nil {
				rae = t.RAE
			}
		}
		a := l.accountLocked(rae, at)
		r.account = a
		fast := !a.events.take(1, at)
		a.tooFast.Store(fast)
		if fast {
			l.offendLocked(a, "events", at)
		}
		if r.bad == nil {
			l.chargeSessionLocked(a, r, at)
		}
		if r.bad != nil && !a.letters.take(float64(len(r.record.Key)+len(r.record.Value)), at) {
			r.strip = true
			l.offendLocked(a, "dead-letter-bytes", at)
		}
	}
}

func (l *ledger) chargeSessionLocked(a *account, r *incoming, at time.Time) {
	session := r.fold.Session
	_, known := a.open[session]
	if r.fold.Closed != 0 {
		if known {
			delete(a.open, session)
			l.sessions--
			return
		}
	}
	if !known {
		if len(a.open) >= l.budgets.Sessions {
			l.expireLocked(a, at)
		}
		budget, most := "", 0
		switch {
		case len(a.open) >= l.budgets.Sessions || a == l.others && l.sessions >= maxSessions:
			budget, most = "sessions", l.budgets.Sessions
		case !a.sessions.take(1, at):
			budget, most = "new-sessions", l.budgets.NewSessions
		}
		if budget != "" {
			r.bad = &device.Invalid{Cause: OverBudget, Detail: fmt.Sprintf("RAE %q is over its budget of %d %s", r.fold.RAE, most, budget)}
			l.offendLocked(a, budget, at)
			return
		}
		if r.fold.Closed != 0 {
			return
		}
		l.sessions++
	}
	a.open[session] = at
}

func (l *ledger) expireLocked(a *account, at time.Time) {
	for session, heard := range a.open {
		if at.Sub(heard) > sessionIdle {
			delete(a.open, session)
			l.sessions--
		}
	}
}

func (l *ledger) offendLocked(a *account, budget string, at time.Time) {
	a.offences++
	a.offended = at
	l.over(budget, 1)
}

// offenders are the RAEs with the most records over a budget of late, by name. The
// others without a name are "".
func (l *ledger) offenders(now time.Time) map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []*account
	note := func(a *account) {
		switch {
		case a.offences == 0:
		case now.Sub(a.offended) > offendedFor:
			a.offences = 0
		default:
			found = append(found, a)
		}
	}
	note(l.others)
	for _, a := range l.accounts {
		note(a)
	}
	slices.SortFunc(found, func(a, b *account) int { return cmp.Or(cmp.Compare(b.offences, a.offences), cmp.Compare(a.rae, b.rae)) })
	out := map[string]int{}
	for _, a := range found[:min(len(found), maxOffender)] {
		out[a.rae] = a.offences
	}
	return out
}
