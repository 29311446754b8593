package registry

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// format is what the meta bucket of a registry says under "format".
const format = "rollcall-registry/1"

var (
	bucketMeta     = []byte("meta")
	bucketRecords  = []byte("records")  // session → record as JSON
	bucketOutbox   = []byte("outbox")   // key (8 bytes, big endian) → topic length (2 bytes), topic, event or reply
	bucketCommands = []byte("commands") // command's ID → rememberedReply as JSON

	keyFormat   = []byte("format")
	keyRAE      = []byte("rae")
	keyPosition = []byte("position")
)

// Errors of Open and Inspect. What wraps them names the file and what to do.
var (
	// ErrLocked: another process has the file open.
	ErrLocked = errors.New("registry is in use")
	// ErrForeign: the file is no registry, or that of another RAE.
	ErrForeign = errors.New("not this RAE's registry")
	// ErrCorrupt: the file is damaged.
	ErrCorrupt = errors.New("registry is corrupt")

	errOtherSession = errors.New("it holds another session")
)

const (
	lockTimeout     = time.Second
	corruptionHelp  = "move the file away to start anew: every device then opens a new session"
	minDatabaseSize = 2 * 4096 // a bbolt file begins with two meta pages
)

// openFile opens a bbolt file and turns what can be wrong with it into errors.
func openFile(path string, readOnly bool) (db *bolt.DB, err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: %w: not a regular file", path, ErrForeign)
	} else if err == nil && info.Size() > 0 && info.Size() < minDatabaseSize {
		return nil, fmt.Errorf("open %s: %w: %d bytes are no database; %s", path, ErrForeign, info.Size(), corruptionHelp)
	}
	err = recoverCorruption(path, func() error {
		db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType, ReadOnly: readOnly, NoStatistics: true})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: %w: another process has locked it (is rollcall-edge already running with this data directory?)", path, ErrLocked)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("open %s: %w: %w; %s", path, ErrForeign, err, corruptionHelp)
	case errors.Is(err, bolterrors.ErrChecksum):
		return nil, fmt.Errorf("open %s: %w: %w; %s", path, ErrCorrupt, err, corruptionHelp)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

// recoverCorruption runs f and turns a panic into ErrCorrupt: bbolt trusts its pages, and a
// damaged file makes it panic or fault on its memory map.
func recoverCorruption(path string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("read %s: %w: %v; %s", path, ErrCorrupt, p, corruptionHelp)
		}
	}()
	return f()
}

// checkSize reports ErrCorrupt if the file is shorter than the database in it.
func checkSize(path string, tx *bolt.Tx) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() < tx.Size() {
		return fmt.Errorf("read %s: %w: it was cut to %d of %d bytes; %s", path, ErrCorrupt, info.Size(), tx.Size(), corruptionHelp)
	}
	return nil
}

// content is what a registry's file holds.
type content struct {
	records   []*record
	position  Position
	events    int
	bytes     int64
	ackedKey  uint64
	newestKey uint64
}

// load reads the file, or makes it this RAE's registry if it is new.
func (r *Registry) load() error {
	err := recoverCorruption(r.o.Path, func() error {
		return r.db.Update(func(tx *bolt.Tx) error {
			if k, _ := tx.Cursor().First(); k == nil {
				if err := create(tx, r.o.RAE); err != nil {
					return err
				}
			} else if err := checkMeta(tx, r.o.Path, r.o.RAE); err != nil {
				return err
			}
			return r.loadReplies(tx)
		})
	})
	if err != nil {
		return err
	}
	c, err := readAll(r.db, r.o.Path)
	if err != nil {
		return err
	}
	r.position, r.savedPosition, r.outboxEvents, r.outboxBytes, r.ackedKey, r.newestKey = c.position, c.position, c.events, c.bytes, c.ackedKey, c.newestKey
	for _, rec := range c.records {
		if r.devices[rec.MAC] != nil {
			return fmt.Errorf("read %s: %w: two sessions of %s; %s", r.o.Path, ErrCorrupt, rec.MAC, corruptionHelp)
		}
		r.devices[rec.MAC] = &trackedDevice{rec: rec, lastSeen: rec.Last, lastHeard: rec.Heard, snapshotDue: r.firstSnapshotTime(rec, r.listeningSince)}
		if rec.hasPending() {
			r.waiting[rec.MAC], r.outboxFull = struct{}{}, true
		}
	}
	return nil
}

func create(tx *bolt.Tx, rae string) error {
	for _, name := range [][]byte{bucketMeta, bucketRecords, bucketOutbox} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	meta := tx.Bucket(bucketMeta)
	if err := meta.Put(keyRAE, []byte(rae)); err != nil {
		return err
	}
	return meta.Put(keyFormat, []byte(format))
}

// checkMeta reports whether the file is a registry of rae; "" is any.
func checkMeta(tx *bolt.Tx, path, rae string) error {
	if err := checkSize(path, tx); err != nil {
		return err
	}
	meta := tx.Bucket(bucketMeta)
	if meta == nil || tx.Bucket(bucketRecords) == nil || tx.Bucket(bucketOutbox) == nil {
		return fmt.Errorf("open %s: %w: the database is of another program", path, ErrForeign)
	}
	if f := string(meta.Get(keyFormat)); f != format {
		return fmt.Errorf("open %s: %w: format %q, this program reads %q", path, ErrForeign, f, format)
	}
	if owner := string(meta.Get(keyRAE)); rae != "" && owner != rae {
		return fmt.Errorf("open %s: %w: it belongs to RAE %q, not %q; use another data directory", path, ErrForeign, owner, rae)
	}
	return nil
}

func readAll(db *bolt.DB, path string) (c content, err error) {
	corrupt := func(what string, err error) error {
		return fmt.Errorf("read %s: %w: %s: %w; %s", path, ErrCorrupt, what, err, corruptionHelp)
	}
	err = recoverCorruption(path, func() error {
		return db.View(func(tx *bolt.Tx) error {
			err := tx.Bucket(bucketRecords).ForEach(func(k, v []byte) error {
				rec := &record{}
				if err := json.Unmarshal(v, rec); err != nil {
					return corrupt(fmt.Sprintf("record %q", k), err)
				}
				if err := device.CheckSession(rec.Session); err != nil || rec.Session != string(k) || rec.MAC == "" {
					return corrupt(fmt.Sprintf("record %q", k), errOtherSession)
				}
				if rec.Attributes == nil {
					rec.Attributes = map[string]attribute{}
				}
				c.records = append(c.records, rec)
				return nil
			})
			if err != nil {
				return err
			}
			meta, outbox := tx.Bucket(bucketMeta), tx.Bucket(bucketOutbox)
			if v := meta.Get(keyPosition); v != nil {
				if err := json.Unmarshal(v, &c.position); err != nil {
					return corrupt("replay position", err)
				}
			}
			c.newestKey = outbox.Sequence()
			c.ackedKey = c.newestKey
			if first, _ := outbox.Cursor().First(); len(first) == 8 {
				c.ackedKey = binary.BigEndian.Uint64(first) - 1
			}
			return outbox.ForEach(func(k, v []byte) error {
				if _, err := decodeEntry(k, v); err != nil {
					return corrupt("outbox", err)
				}
				c.events++
				c.bytes += entryBytes(v)
				return nil
			})
		})
	})
	return c, err
}

// Contents is what Inspect finds.
type Contents struct {
	RAE      string
	Devices  []Device
	Events   []Entry // the oldest of the outbox
	Pending  int     // events in the outbox
	Bytes    int64   // their size
	Position Position
}

// Inspect reads the file of a registry that no process has open, without
// changing it: its devices and the first most events of its outbox. While a
// process has it open, it fails with ErrLocked.
func Inspect(path string, most int) (Contents, error) {
	if _, err := os.Stat(path); err != nil {
		return Contents{}, fmt.Errorf("open registry: %w", err)
	}
	db, err := openFile(path, true)
	if err != nil {
		return Contents{}, err
	}
	defer func() { _ = db.Close() }()
	var out Contents
	err = recoverCorruption(path, func() error {
		return db.View(func(tx *bolt.Tx) error {
			if err := checkMeta(tx, path, ""); err != nil {
				return err
			}
			out.RAE = string(tx.Bucket(bucketMeta).Get(keyRAE))
			out.Events, err = readEntries(tx, 0, most, maxReadBytes)
			return err
		})
	})
	if err != nil {
		return Contents{}, err
	}
	c, err := readAll(db, path)
	if err != nil {
		return Contents{}, err
	}
	out.Position, out.Pending, out.Bytes = c.position, c.events, c.bytes
	for _, rec := range c.records {
		out.Devices = append(out.Devices, rec.device())
	}
	sortDevices(out.Devices)
	return out, nil
}
