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

// Errors of SnapshotNow and Answer, beside ErrOutboxFull.
var (
	// ErrUnknownSession says that there is no record of a session.
	ErrUnknownSession = errors.New("unknown session")
	// ErrTooManyAnswers says that Options.MaxAnswers commands were answered and have
	// not expired. A command that is done then could be done twice.
	ErrTooManyAnswers = errors.New("too many commands are remembered")
)

// answer is what was answered to a command, kept until the command expires: the
// same command may come again until then.
type answer struct {
	Expires time.Time       `json:"expires"`
	Reply   json.RawMessage `json:"reply,omitempty"` // as encoded
	Topic   string          `json:"topic,omitempty"`
}

func (a answer) gone() bool { return a.Reply == nil }

// loadAnswers reads what is remembered. An entry that cannot be read is as good
// as none.
func (r *Registry) loadAnswers(tx *bolt.Tx) error {
	b, err := tx.CreateBucketIfNotExists(bucketCommands)
	if err != nil {
		return err
	}
	return b.ForEach(func(k, v []byte) error {
		var a answer
		if json.Unmarshal(v, &a) == nil && !a.gone() {
			r.answers[string(k)] = a
		}
		return nil
	})
}

func putAnswers(tx *bolt.Tx, answered map[string]answer) error {
	b := tx.Bucket(bucketCommands)
	for id, a := range answered {
		if a.gone() {
			if err := b.Delete([]byte(id)); err != nil {
				return err
			}
			continue
		}
		v, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("encode answer to command %s: %w", id, err)
		}
		if err := b.Put([]byte(id), v); err != nil {
			return err
		}
	}
	return nil
}

// Answered returns what was answered to a command with the ID, if it is
// remembered.
func (r *Registry) Answered(id string) (device.Reply, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	a, ok := r.answers[id]
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
	return r.macOf(session) != ""
}

// macOf returns the MAC of a session's device, or "". The caller holds r.mu or
// r.write.
func (r *Registry) macOf(session string) string {
	for mac, e := range r.devices {
		if e.rec.Session == session {
			return mac
		}
	}
	return ""
}

// SnapshotNow does what a snapshot command asks: the snapshot, the reply that
// names its seq and the memory of the command are written by one transaction.
// So after kill -9 either all of it happened or nothing, and the command that
// then comes again is answered as it was or done for the first time.
//
// It fails with ErrUnknownSession, ErrTooManyAnswers or ErrOutboxFull, and
// then nothing has changed.
func (r *Registry) SnapshotNow(ctx context.Context, c device.Command) (device.Reply, error) {
	fail := func(err error) (device.Reply, error) {
		return device.Reply{}, fmt.Errorf("snapshot of session %s: %w", c.Session, err)
	}
	r.write.Lock()
	defer r.write.Unlock()
	if err := ctx.Err(); err != nil {
		return device.Reply{}, err
	}
	mac := r.macOf(c.Session)
	if mac == "" {
		return fail(ErrUnknownSession)
	}
	now := r.o.Now()
	t := r.begin()
	t.forgetAnswers(now)
	if len(r.answers)-len(t.answered) >= r.o.MaxAnswers {
		return fail(ErrTooManyAnswers)
	}
	if ok, err := t.snapshot(mac, now); err != nil || !ok {
		return fail(errors.Join(err, unless(ok, ErrOutboxFull)))
	}
	result, err := json.Marshal(device.SnapshotResult{Seq: t.get(mac).Seq})
	if err != nil {
		return fail(err)
	}
	reply := device.Reply{Command: c.ID, RAE: r.o.RAE, Session: c.Session, Action: c.Action, Outcome: device.Done, Result: result, Time: millis(now, now)}
	if err := t.reply(reply, c.Expires); err != nil {
		return fail(err)
	}
	t.due[mac] = r.nextSnapshot(now)
	return reply, t.save()
}

// Answer appends a reply to the outbox. With a time until which it is to be
// remembered, a repetition of the command finds it with Answered; it is then
// not remembered if Options.MaxAnswers are. It fails with ErrOutboxFull if there is no
// room.
func (r *Registry) Answer(ctx context.Context, reply device.Reply, until time.Time) error {
	r.write.Lock()
	defer r.write.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	now := r.o.Now()
	t := r.begin()
	t.forgetAnswers(now)
	if len(r.answers)-len(t.answered) >= r.o.MaxAnswers {
		until = time.Time{}
	}
	if err := t.reply(reply, until); err != nil {
		return fmt.Errorf("answer command %s: %w", reply.Command, err)
	}
	return t.save()
}

// reply puts reply into the outbox and, unless until is past, into the memory.
func (t *txn) reply(reply device.Reply, until time.Time) error {
	topic, err := reply.Topic()
	if err != nil {
		return err
	}
	payload, err := reply.Encode()
	if err != nil {
		return err
	}
	if !t.enqueue(event{entry: encodeEntry(topic, payload)}) {
		return ErrOutboxFull
	}
	if _, known := t.r.answers[reply.Command]; !known && until.After(t.r.o.Now()) {
		t.answered[reply.Command] = answer{Expires: until, Reply: payload, Topic: topic}
	}
	return nil
}

// forgetAnswers drops what has expired.
func (t *txn) forgetAnswers(now time.Time) {
	for id, a := range t.r.answers {
		if !now.Before(a.Expires) {
			t.answered[id] = answer{}
		}
	}
}

func unless(ok bool, err error) error {
	if ok {
		return nil
	}
	return err
}
