package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Errors of Do and Reply, beside ErrOutboxFull.
var (
	// ErrUnknownSession says that there is no record of a session.
	ErrUnknownSession = errors.New("unknown session")
	// ErrTooManyReplies says that Options.MaxReplies commands were answered and
	// have not expired. A command that is done then could be done twice.
	ErrTooManyReplies = errors.New("too many replies are remembered")
)

// rememberedReply is what was answered to a command, kept until the command
// expires: until then the same command may be delivered again.
type rememberedReply struct {
	Expires time.Time       `json:"expires"`
	Reply   json.RawMessage `json:"reply,omitempty"` // as encoded
	Topic   string          `json:"topic,omitempty"`
}

// forgotten reports whether a transaction removes the reply.
func (a rememberedReply) forgotten() bool { return a.Reply == nil }

// loadReplies reads the remembered replies. It ignores an entry that cannot be
// read.
func (r *Registry) loadReplies(tx *bolt.Tx) error {
	b, err := tx.CreateBucketIfNotExists(bucketCommands)
	if err != nil {
		return err
	}
	return b.ForEach(func(k, v []byte) error {
		var a rememberedReply
		if json.Unmarshal(v, &a) == nil && !a.forgotten() {
			r.replies[string(k)] = a
		}
		return nil
	})
}

func putReplies(tx *bolt.Tx, replies map[string]rememberedReply) error {
	b := tx.Bucket(bucketCommands)
	for id, a := range replies {
		if a.forgotten() {
			if err := b.Delete([]byte(id)); err != nil {
				return err
			}
			continue
		}
		v, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("encode reply to command %s: %w", id, err)
		}
		if err := b.Put([]byte(id), v); err != nil {
			return err
		}
	}
	return nil
}

// RememberedReply returns what was answered to the command with the ID; ok is
// false where that is not remembered.
func (r *Registry) RememberedReply(id string) (reply device.Reply, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	a, ok := r.replies[id]
	if !ok {
		return device.Reply{}, false
	}
	reply, err := device.DecodeReply(a.Topic, a.Reply)
	return reply, err == nil
}

// HasSession reports whether there is a record of the session.
func (r *Registry) HasSession(session string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.macOfLocked(session) != ""
}

// macOfLocked returns the MAC of a session's device, or "". Requires: r.mu or
// r.write is held.
func (r *Registry) macOfLocked(session string) string {
	for mac, d := range r.devices {
		if d.rec.Session == session {
			return mac
		}
	}
	return ""
}

// CommandTxn is the transaction of one command: what the command may do to its
// session. It must not be used after the function that got it has returned. Not
// safe for concurrent use.
type CommandTxn struct {
	t   *txn
	mac string
	now time.Time
}

// Snapshot appends a snapshot of the session to the outbox and returns its seq.
// It fails with ErrOutboxFull.
func (c *CommandTxn) Snapshot() (seq int64, err error) {
	if err := c.t.appendSnapshot(c.mac, c.now); err != nil {
		return 0, err
	}
	c.t.snapshotDue[c.mac] = c.t.r.nextSnapshotTime(c.now)
	return c.t.record(c.mac).Seq, nil
}

// Do does a command at most once. What run changes, the reply with the result
// that run returns (nil: none) and the memory of the command are written by one
// transaction. So after kill -9 either all of it happened or nothing, and the
// command that is then delivered again is answered as before or done for the first
// time.
//
// It fails with ErrUnknownSession, ErrTooManyReplies, ErrOutboxFull, a
// *device.Invalid where the result breaks the contract, or what run returns. Then
// nothing has changed. The caller asks RememberedReply before.
func (r *Registry) Do(ctx context.Context, c device.Command, run func(*CommandTxn) (result any, err error)) (reply device.Reply, err error) {
	err = r.update(ctx, func(t *txn, now time.Time) error {
		mac := r.macOfLocked(c.Session)
		if mac == "" {
			return ErrUnknownSession
		}
		t.forgetExpiredReplies(now)
		if t.replyMemoryFull() {
			return ErrTooManyReplies
		}
		result, err := run(&CommandTxn{t: t, mac: mac, now: now})
		if err != nil {
			return err
		}
		reply = device.Reply{Command: c.ID, RAE: r.o.RAE, Session: c.Session, Action: c.Action, Outcome: device.Done, Time: millis(now, now)}
		if result != nil {
			if reply.Result, err = json.Marshal(result); err != nil {
				return fmt.Errorf("encode result: %w", err)
			}
		}
		if err := t.appendReply(reply, c.Expires); err != nil {
			return err
		}
		return t.write()
	})
	if err != nil {
		return device.Reply{}, fmt.Errorf("%s of session %s: %w", c.Action, c.Session, err)
	}
	return reply, nil
}

// Reply appends a reply to the outbox. Until the given time, a repetition of
// the command finds it with RememberedReply, unless Options.MaxReplies are
// remembered already. It fails with ErrOutboxFull.
func (r *Registry) Reply(ctx context.Context, reply device.Reply, until time.Time) error {
	return r.update(ctx, func(t *txn, now time.Time) error {
		t.forgetExpiredReplies(now)
		if t.replyMemoryFull() {
			until = time.Time{}
		}
		if err := t.appendReply(reply, until); err != nil {
			return fmt.Errorf("answer command %s: %w", reply.Command, err)
		}
		return t.write()
	})
}

// appendReply puts reply into the outbox and, unless until is past, into the
// memory. It fails with ErrOutboxFull.
func (t *txn) appendReply(reply device.Reply, until time.Time) error {
	topic, err := reply.Topic()
	if err != nil {
		return err
	}
	payload, err := reply.Encode()
	if err != nil {
		return err
	}
	if err := t.enqueue(stagedEntry{value: encodeEntry(topic, payload)}); err != nil {
		return err
	}
	if _, known := t.r.replies[reply.Command]; !known && until.After(t.r.o.Now()) {
		t.replies[reply.Command] = rememberedReply{Expires: until, Reply: payload, Topic: topic}
	}
	return nil
}

// forgetExpiredReplies removes the replies to commands that have expired.
func (t *txn) forgetExpiredReplies(now time.Time) {
	for id, a := range t.r.replies {
		if !now.Before(a.Expires) {
			t.replies[id] = rememberedReply{}
		}
	}
}

// replyMemoryFull reports whether Options.MaxReplies are remembered. Requires:
// forgetExpiredReplies was called, and nothing was remembered since.
func (t *txn) replyMemoryFull() bool {
	return len(t.r.replies)-len(t.replies) >= t.r.o.MaxReplies
}
