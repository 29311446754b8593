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

// take moves one signal from the channel into what waits, or into what is
// refused, and returns the bytes that adds. It reads the payload raw: the SDK
// drops a signal that it cannot decode, and a dropped signal would be neither
// counted nor acknowledged.
func (s *session) take(ctx workflow.Context, raw converter.RawValue) int {
	s.Counters.Signals++
	s.signals++
	s.LastSignalAt, s.ended = workflow.Now(ctx), false
	payload := raw.Payload()
	batch, refusal := s.decode(payload, workflow.Now(ctx))
	if refusal != nil {
		s.PendingRefusals = append(s.PendingRefusals, *refusal)
		return refusalBytes
	}
	s.Waiting = append(s.Waiting, WaitingBatch{Batch: batch, Bytes: len(payload.GetData())})
	return len(payload.GetData())
}

// drain takes what the channel holds. It reports false, and stops, when more
// than most bytes wait: the channel may then hold more. It does not block.
func (s *session) drain(ctx workflow.Context, most int) bool {
	for bytes := s.bytes(); bytes <= most; {
		var raw converter.RawValue
		if !s.inbox.ReceiveAsync(&raw) {
			return true
		}
		bytes += s.take(ctx, raw)
	}
	return false
}

// decode reads a signal's payload. What can never be applied comes back as a
// Refusal, with its Kafka coordinates as far as they can be read: the poller
// waits for them to be passed.
func (s *session) decode(payload *commonpb.Payload, now time.Time) (device.Batch, *Refusal) {
	var batch device.Batch
	refuse := func(cause, format string, args ...any) (device.Batch, *Refusal) {
		r := coordinates(payload.GetData())
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
	if !isTopic(batch.Topic) {
		return refuse(CauseInvalid, "%q is not the name of a Kafka topic", batch.Topic)
	}
	if batch.Partition < 0 || batch.Last > device.MaxSeq {
		return refuse(CauseInvalid, "partition %d, offset %d: Kafka has none such", batch.Partition, batch.Last)
	}
	if err := checkSeqs(batch.Fold); err != nil {
		return refuse(CauseInvalid, "%v", err)
	}
	if batch.Fold.Session != s.id {
		return refuse(CauseForeign, "batch of session %s", batch.Fold.Session)
	}
	if batch.Fold.RAE != s.rae {
		return refuse(CauseForeign, foreignRAE, batch.Fold.RAE, s.rae)
	}
	return batch, nil
}

const foreignRAE = "batch of RAE %q: the session is one of RAE %q"

// disown refuses the batches that were taken before it was known which RAE the
// session is of.
func (s *session) disown(now time.Time) {
	s.Waiting = slices.DeleteFunc(s.Waiting, func(w WaitingBatch) bool {
		b := w.Batch
		if b.Fold.RAE == s.rae {
			return false
		}
		s.PendingRefusals = append(s.PendingRefusals, Refusal{
			Topic: b.Topic, Partition: b.Partition, First: b.First, Last: b.Last,
			Cause: CauseForeign, Detail: clip(fmt.Sprintf(foreignRAE, b.Fold.RAE, s.rae)), At: now,
		})
		return true
	})
}

// coordinates reads what it can of a batch that is refused.
func coordinates(data []byte) Refusal {
	var c struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		First     int64  `json:"first"`
		Last      int64  `json:"last"`
	}
	err := json.Unmarshal(data, &c)
	if err != nil || !isTopic(c.Topic) || c.Partition < 0 || c.First < 0 || c.Last < c.First || c.Last > device.MaxSeq {
		return Refusal{}
	}
	return Refusal{Topic: c.Topic, Partition: c.Partition, First: c.First, Last: c.Last}
}

// isTopic holds Kafka's own rule. A position is written with no way to refuse
// it, so its topic must be one that the database takes.
func isTopic(s string) bool {
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
	return device.Position{Topic: r.Topic, Partition: r.Partition, Next: r.Last + 1}
}

// checkSeqs holds what the state relies on: ranges in order, and no attribute
// from beyond the events that the fold says it has.
func checkSeqs(f device.Fold) error {
	var last int64
	for _, r := range f.Seqs {
		if r.From <= last || r.To < r.From {
			return fmt.Errorf("seq ranges %s are not in order", clip(f.Seqs.String()))
		}
		last = r.To
	}
	if last > device.MaxSeq || f.Snapshot > last || f.Closed > last {
		return fmt.Errorf("seq %d past the last event, %d", max(last, f.Snapshot, f.Closed), last)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
		if seq := f.Attributes[name].Seq; seq < 1 || seq > last {
			return fmt.Errorf("attribute %s of seq %d: the events are of seq 1 to %d", clip(name), seq, last)
		}
	}
	return nil
}

// clip shortens outside text before it is kept in the state.
func clip(s string) string {
	const most = 300
	if len(s) <= most {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
