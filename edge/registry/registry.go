package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	bolt "go.etcd.io/bbolt"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Defaults of Options.
const (
	DefaultSnapshotInterval = 3 * time.Hour
	DefaultOfflineAfter     = 90 * time.Second
	DefaultForgetAfter      = 30 * 24 * time.Hour
	DefaultMaxDevices       = 4096
	DefaultMaxOutboxBytes   = 256 << 20
	DefaultMaxReplies       = 1024
)

const (
	dueWorkEvery = time.Second
	flushEvery   = 5 * time.Minute // how old a last-seen time on disk may be
	// spreadOverdue is the time over which snapshots that were missed while
	// the process was down are taken, so that a fleet that gets its power
	// back does not send them all at once.
	spreadOverdue = 5 * time.Minute
)

// Options of a Registry.
type Options struct {
	// Path of the database file. It is created, readable by its owner only,
	// if it does not exist. Required.
	Path string
	// RAE is the serial of this RAE. A file that belongs to another one is
	// refused. Required.
	RAE string
	// Logger is required.
	Logger *slog.Logger
	// Registerer gets the metrics. Default: none.
	Registerer prometheus.Registerer

	// SnapshotInterval is the time between two snapshots of a session, give
	// or take a tenth. A shorter one heals gaps sooner and costs traffic.
	// Negative: no snapshots. Default DefaultSnapshotInterval.
	SnapshotInterval time.Duration
	// OfflineAfter is how long a device may be silent before it is offline. It
	// should cover two probes. Zero: no device is offline by silence, as in
	// the replay of a capture.
	OfflineAfter time.Duration
	// ForgetAfter closes the session of a device that was offline and silent
	// for this long. Seen again, it opens a new session. Negative: never. Default DefaultForgetAfter.
	ForgetAfter time.Duration
	// MaxDevices bounds the devices that are known at a time; further ones
	// are refused, counted and logged. Default DefaultMaxDevices.
	MaxDevices int
	// MaxOutboxBytes bounds the events that wait for their acknowledgement.
	// When it is reached nothing is dropped: what changes is folded into the
	// records until there is room. Default DefaultMaxOutboxBytes.
	MaxOutboxBytes int64
	// MaxReplies bounds the remembered replies to commands that have not
	// expired, some 500 bytes each. Beyond it no command is done. Default
	// DefaultMaxReplies.
	MaxReplies int

	// Now is the clock. Default time.Now.
	Now func() time.Time
	// NewSession makes session identifiers. Default: random UUIDs (version 4).
	NewSession func() (string, error)
	// Rand returns numbers in [0, 1) for jitter. Default math/rand/v2.
	Rand func() float64
}

func (o *Options) setDefaults() error {
	if o.Path == "" || o.Logger == nil {
		return errors.New("registry: Path and Logger are required")
	}
	if err := device.CheckRAE(o.RAE); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	if o.SnapshotInterval == 0 {
		o.SnapshotInterval = DefaultSnapshotInterval
	}
	if o.ForgetAfter == 0 {
		o.ForgetAfter = DefaultForgetAfter
	}
	if o.MaxDevices <= 0 {
		o.MaxDevices = DefaultMaxDevices
	}
	if o.MaxOutboxBytes <= 0 {
		o.MaxOutboxBytes = DefaultMaxOutboxBytes
	}
	if o.MaxReplies <= 0 {
		o.MaxReplies = DefaultMaxReplies
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.NewSession == nil {
		o.NewSession = NewSessionFrom(nil)
	}
	return nil
}

// NewSessionFrom makes version 4 UUIDs from random bytes; nil takes the
// operating system's.
func NewSessionFrom(random io.Reader) func() (string, error) {
	return func() (string, error) {
		id, err := uuid.NewRandom()
		if random != nil {
			id, err = uuid.NewRandomFromReader(random)
		}
		if err != nil {
			return "", fmt.Errorf("new session identifier: %w", err)
		}
		return id.String(), nil
	}
}

// Position is how far an input was read that can be read again: a capture.
type Position struct {
	// Source identifies the input, whatever its name.
	Source string `json:"source,omitempty"`
	// Frame is the last frame that was taken in.
	Frame int64 `json:"frame,omitempty"`
	// Ended says that there was no frame after it.
	Ended bool `json:"ended,omitempty"`
}

// Registry holds the records of one RAE. Its methods may be called from any
// goroutine.
type Registry struct {
	o       Options
	db      *bolt.DB
	metrics *metrics
	refused logOnce

	// appended has a token when the outbox got an event since it was taken.
	appended chan struct{}

	// write is held by whoever changes anything, until the change is on disk.
	// Invariant: what mu guards is written with both held, write taken first. So
	// a reader needs only one of them.
	write sync.Mutex
	mu    sync.RWMutex

	// Guarded by mu.
	devices       map[string]*trackedDevice  // by MAC
	waiting       map[string]struct{}        // MACs of records with changes that wait for room in the outbox
	replies       map[string]rememberedReply // by the command's ID
	position      Position                   // newest, on disk or not
	savedPosition Position                   // on disk
	outboxEvents  int
	outboxBytes   int64
	ackedKey      uint64 // the newest key of the outbox that was acknowledged
	newestKey     uint64 // the newest key of the outbox
	writeErr      error  // why the last transaction failed; nil after one that did not

	listeningSince time.Time // when this process began to listen

	// Guarded by write.
	nextFlush  time.Time
	outboxFull bool // the outbox refused an event since it had room for all
}

// trackedDevice is a device in memory: its committed record, and what is not worth
// a transaction of its own.
type trackedDevice struct {
	rec         *record
	lastSeen    time.Time // newest observation's time
	lastHeard   time.Time // newest observation's arrival
	snapshotDue time.Time // next snapshot
}

// Open opens or creates the database and reads its records. An error says
// whether the file is locked by another process, foreign, another RAE's or
// corrupt.
func Open(o Options) (*Registry, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	r := &Registry{o: o, listeningSince: o.Now(), devices: map[string]*trackedDevice{}, waiting: map[string]struct{}{}, replies: map[string]rememberedReply{}, appended: make(chan struct{}, 1)}
	db, err := openFile(o.Path, false)
	if err != nil {
		return nil, err
	}
	r.db = db
	if err := r.load(); err != nil {
		_ = db.Close()
		return nil, err
	}
	if r.metrics, err = newMetrics(o.Registerer, r); err != nil {
		_ = db.Close()
		return nil, err
	}
	r.nextFlush = r.listeningSince.Add(flushEvery)
	if r.outboxEvents > 0 {
		r.signal()
	}
	return r, nil
}

// Run calls RunDueWork once a second until ctx is cancelled.
func (r *Registry) Run(ctx context.Context) error {
	ticker := time.NewTicker(dueWorkEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := r.RunDueWork(ctx); err != nil && ctx.Err() == nil {
				r.o.Logger.Error("registry could not write; it will try again", "path", r.o.Path, "err", err)
			}
		}
	}
}

// Close writes what is only in memory (last-seen times, the replay position)
// and closes the file. Nothing may call the registry after it.
func (r *Registry) Close() error {
	err := r.Flush()
	r.metrics.unregister()
	if err2 := r.db.Close(); err == nil && err2 != nil {
		err = fmt.Errorf("close %s: %w", r.o.Path, err2)
	}
	return err
}

// Ready returns nil when the last write succeeded.
func (r *Registry) Ready() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.writeErr
}

// Device is a copy of one record.
type Device struct {
	MAC     string `json:"mac"`
	Session string `json:"session"`
	// Seq is the seq of the session's newest event; 0 while its opened
	// waits for room in the outbox.
	Seq    int64  `json:"seq"`
	Status string `json:"status"` // Online or device.Offline
	// Waiting says that changes, removals among them, wait for room in the
	// outbox: no event carries them yet.
	Waiting bool `json:"waiting,omitempty"`
	// First and Last are the times of the first and the newest observation.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Attributes that have a value. Seq 0 says that no event carries the value
	// yet, because the outbox is full.
	Attributes map[string]device.Attribute `json:"attributes"`
}

func (r *record) device() Device {
	return Device{
		MAC: r.MAC, Session: r.Session, Seq: r.Seq, Status: r.status(), Waiting: r.hasPending(),
		First: r.First, Last: r.Last, Attributes: r.live(),
	}
}

// Devices returns copies of all records, sorted by MAC.
func (r *Registry) Devices() []Device {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]Device, 0, len(r.devices))
	for _, e := range r.devices {
		d := e.rec.device()
		d.Last = e.lastSeen
		out = append(out, d)
	}
	sortDevices(out)
	return out
}

func sortDevices(d []Device) {
	slices.SortFunc(d, func(a, b Device) int { return strings.Compare(a.MAC, b.MAC) })
}

// Value returns the value of a device's attribute as JSON, or nil.
func (r *Registry) Value(mac, name string) []byte {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.devices[mac]; e != nil {
		return e.rec.value(name)
	}
	return nil
}

// Position is how far the input was taken in, as far as this process knows;
// after Open, what the last transaction wrote.
func (r *Registry) Position() Position {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.position
}

// logOnce remembers for what a warning was written, so that a device that
// repeats itself does not fill the log.
type logOnce struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

const maxLogOnce = 1024

func (l *logOnce) first(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.seen[key]; ok || len(l.seen) >= maxLogOnce {
		return false
	}
	if l.seen == nil {
		l.seen = map[string]struct{}{}
	}
	l.seen[key] = struct{}{}
	return true
}
