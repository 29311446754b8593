package workflows

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// takeSignal moves one signal to the batches that wait, or to the pending refusals,
// and returns the bytes that adds. It reads the payload raw: the SDK drops a signal
// that it cannot decode, and a dropped signal would be neither counted nor quarantined.
func (s *session) takeSignal(ctx workflow.Context, raw converter.RawValue) int {
	s.Counters.Signals++
	s.signalsInRun++
	s.LastSignalAt, s.idleTimeoutReached = workflow.Now(ctx), false
	payload := raw.Payload()
	batch, refusal := s.decodeBatch(payload, workflow.Now(ctx))
	if refusal != nil {
		s.PendingRefusals = append(s.PendingRefusals, *refusal)
		return refusalBytes
	}
	s.Waiting = append(s.Waiting, WaitingBatch{Batch: batch, Bytes: len(payload.GetData())})
	return len(payload.GetData())
}

// receiveBatches takes the signals that the channel holds, without blocking. It
// stops and returns false when more than maxBytes wait: the channel may then hold
// more.
func (s *session) receiveBatches(ctx workflow.Context, maxBytes int) bool {
	for bytes := s.waitingBytes(); bytes <= maxBytes; {
		var raw converter.RawValue
		if !s.eventSignals.ReceiveAsync(&raw) {
			return true
		}
		bytes += s.takeSignal(ctx, raw)
	}
	return false
}

// decodeBatch reads a signal's payload. It returns a Refusal for what can never be
// applied, with the Kafka coordinates where they can be read: the poller waits
// until that position is passed.
func (s *session) decodeBatch(payload *commonpb.Payload, now time.Time) (device.Batch, *Refusal) {
	var batch device.Batch
	refuse := func(cause, format string, args ...any) (device.Batch, *Refusal) {
		r := readCoordinates(payload.GetData())
		r.Cause, r.Detail, r.At = cause, clip(fmt.Sprintf(format, args...)), now
		return device.Batch{}, &r
	}
	if enc := string(payload.GetMetadata()[converter.MetadataEncoding]); enc != converter.MetadataEncodingJSON {
		return refuse(CausePayload, "payload of encoding %q, not %s", enc, converter.MetadataEncodingJSON)
	}
	var version struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(payload.GetData(), &version); err != nil {
		return refuse(CausePayload, "payload is not a batch: %v", err)
	}
	if version.Version != device.BatchVersion {
		return refuse(CauseVersion, "batch of schema version %d: this worker reads version %d", version.Version, device.BatchVersion)
	}
	if err := json.Unmarshal(payload.GetData(), &batch); err != nil {
		return refuse(CausePayload, "payload is not a batch: %v", err)
	}
	if err := batch.Check(); err != nil {
		return refuse(CauseInvalid, "%v", err)
	}
	if !isTopicName(batch.Topic) {
		return refuse(CauseInvalid, "%q is not a name of a Kafka topic", batch.Topic)
	}
	if batch.Partition < 0 || batch.Last > device.MaxSeq {
		return refuse(CauseInvalid, "partition %d, offset %d: out of Kafka's range", batch.Partition, batch.Last)
	}
	if err := checkSeqs(batch.Fold); err != nil {
		return refuse(CauseInvalid, "%v", err)
	}
	if batch.Fold.Session != s.id {
		return refuse(CauseForeign, "batch of session %s", batch.Fold.Session)
	}
	if err := device.CheckRAE(batch.Fold.RAE); err != nil {
		return refuse(CauseInvalid, "%v", err)
	}
	if s.Sync != SyncLoading && batch.Fold.RAE != s.rae {
		r := s.foreignRefusal(batch, now)
		return device.Batch{}, &r
	}
	return batch, nil
}

// foreignRefusal refuses a batch of another RAE than the session's.
func (s *session) foreignRefusal(b device.Batch, now time.Time) Refusal {
	return Refusal{
		Topic: b.Topic, TopicID: b.TopicID, Partition: b.Partition, First: b.First, Last: b.Last, Foreign: b.Fold.RAE,
		Cause: CauseForeign, Detail: clip(fmt.Sprintf("batch of RAE %q: the session is of RAE %q", b.Fold.RAE, s.rae)), At: now,
	}
}

// rejectForeignBatches refuses the batches of another RAE that were received before
// the load said which RAE the session is of. Until then the run knows only who
// started it, and that may be the other RAE.
func (s *session) rejectForeignBatches(now time.Time) {
	s.Waiting = slices.DeleteFunc(s.Waiting, func(w WaitingBatch) bool {
		b := w.Batch
		if b.Fold.RAE == s.rae {
			return false
		}
		s.PendingRefusals = append(s.PendingRefusals, s.foreignRefusal(b, now))
		return true
	})
}

// readCoordinates reads the Kafka coordinates of a payload that is refused; the
// Refusal is empty where there are none that Kafka could have.
func readCoordinates(data []byte) Refusal {
	var c struct {
		Topic     string `json:"topic"`
		TopicID   string `json:"topic_id"`
		Partition int32  `json:"partition"`
		First     int64  `json:"first"`
		Last      int64  `json:"last"`
	}
	err := json.Unmarshal(data, &c)
	if err != nil || !isTopicName(c.Topic) || !device.IsTopicID(c.TopicID) || c.Partition < 0 || c.First < 0 || c.Last < c.First || c.Last > device.MaxSeq {
		return Refusal{}
	}
	return Refusal{Topic: c.Topic, TopicID: c.TopicID, Partition: c.Partition, First: c.First, Last: c.Last}
}

// isTopicName checks Kafka's own rule. The apply that quarantines a refused batch must
// never be refused itself, so its topic must be one that the database takes.
func isTopicName(s string) bool {
	if s == "" || len(s) > 249 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func (r Refusal) position() device.Position {
	p := device.Position{Topic: r.Topic, TopicID: r.TopicID, Partition: r.Partition, Next: r.Last + 1}
	if r.Foreign != "" {
		return p.Foreign(r.Foreign)
	}
	return p
}

// checkSeqs checks what the state relies on: the ranges are in order, and no
// attribute is newer than the events that the fold says it has.
func checkSeqs(f device.Fold) error {
	var last int64
	for _, r := range f.Seqs {
		if r.From <= last || r.To < r.From {
			return fmt.Errorf("seq ranges %s are not in order", clip(f.Seqs.String()))
		}
		last = r.To
	}
	if last > device.MaxSeq || f.Snapshot > last || f.Closed > last {
		return fmt.Errorf("seq %d is past the last event, %d", max(last, f.Snapshot, f.Closed), last)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
		if seq := f.Attributes[name].Seq; seq < 1 || seq > last {
			return fmt.Errorf("attribute %s has seq %d, outside of 1 to %d, the seqs of the events", clip(name), seq, last)
		}
	}
	return nil
}

// clip shortens text from outside before it is kept in the state, to 300 bytes and
// an ellipsis, of valid UTF-8.
func clip(s string) string {
	const maxBytes = 300
	if len(s) <= maxBytes {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.ToValidUTF8(s[:maxBytes], "") + "…"
}
