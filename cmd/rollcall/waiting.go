package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/workers/session/control"
)

// waitingFlags say where to ask what has come and is not applied.
type waitingFlags struct {
	Waiting    bool          `help:"Ask Kafka and Temporal what has come and is not applied yet." default:"true" negatable:"" env:"ROLLCALL_WAITING"`
	WaitingFor time.Duration `name:"waiting-timeout" help:"Do not wait longer than this for either." default:"2s"`
	Kafka      kafkaFlags    `embed:"" group:"kafka"`
	Topic      string        `help:"Kafka topic of the devices' events." default:"rollcall.device-events" env:"ROLLCALL_TOPIC"`
	Group      string        `help:"Consumer group of the pollers." default:"rollcall-poller" env:"ROLLCALL_GROUP"`
	Temporal   temporalFlags `embed:"" group:"temporal"`
}

func (f *waitingFlags) check() error {
	if !f.Waiting {
		return nil
	}
	if f.WaitingFor <= 0 {
		return errors.New("--waiting-timeout must be more than 0")
	}
	return errors.Join(f.Kafka.validate(), f.Temporal.validate())
}

// waiting is what has come and is not applied. What could not be asked is not
// known, and says why.
type waiting struct {
	// Records in Kafka that the pollers have not committed, of all sessions.
	Records      int64  `json:"kafka_records"`
	KafkaUnknown string `json:"kafka_unknown,omitempty"`
	// Workflow is what the session's workflow has not done yet; empty: nothing.
	Workflow        string `json:"workflow,omitempty"`
	TemporalUnknown string `json:"temporal_unknown,omitempty"`
}

// askWaiting asks both at once. An empty session asks Kafka alone. Nil: it is not to.
func (f *waitingFlags) askWaiting(ctx context.Context, env cli.Env, session string) *waiting {
	if !f.Waiting {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.WaitingFor, fmt.Errorf("no answer within %s", f.WaitingFor))
	defer cancel()
	var w waiting
	done := make(chan struct{})
	go func() {
		defer close(done)
		if session == "" {
			return
		}
		var err error
		if w.Workflow, err = f.inTemporal(ctx, env, session); err != nil {
			w.TemporalUnknown = why(ctx, err)
		}
	}()
	var err error
	if w.Records, err = f.inKafka(ctx); err != nil {
		w.KafkaUnknown = why(ctx, err)
	}
	<-done
	return &w
}

func why(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return cli.OneLine(err)
}

// inKafka counts the records that the pollers have not committed.
func (f *waitingFlags) inKafka(ctx context.Context) (int64, error) {
	opts, err := f.Kafka.options("cli").Opts()
	if err != nil {
		return 0, err
	}
	client, err := kgo.NewClient(append(opts, kgo.RequestRetries(0))...)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ends, err := admin.ListEndOffsets(ctx, f.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, err
	}
	starts, err := admin.ListStartOffsets(ctx, f.Topic)
	if err != nil {
		return 0, err
	}
	committed, err := admin.FetchOffsetsForTopics(ctx, f.Group, f.Topic)
	if err == nil {
		err = committed.Error()
	}
	if errors.Is(err, kerr.GroupIDNotFound) { // no poller has ever committed
		committed, err = nil, nil
	}
	if err != nil {
		return 0, err
	}
	var n int64
	ends.Each(func(end kadm.ListedOffset) {
		from := int64(0)
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok {
			from = start.Offset
		}
		if at, ok := committed.Lookup(end.Topic, end.Partition); ok {
			from = max(from, at.At)
		}
		n += max(0, end.Offset-from)
	})
	return n, nil
}

// inTemporal is what the session's workflow has not done yet.
func (f *waitingFlags) inTemporal(ctx context.Context, env cli.Env, session string) (string, error) {
	temporal, _, err := f.Temporal.dial(ctx, env.Logger)
	if err != nil {
		return "", err
	}
	defer temporal.Close()
	return control.Client{Temporal: temporal}.Undone(ctx, session)
}

// text is what waits, for people.
func (w *waiting) text() string {
	if w == nil {
		return "not asked"
	}
	var parts []string
	switch {
	case w.KafkaUnknown != "":
		parts = append(parts, "in Kafka not known: "+w.KafkaUnknown)
	case w.Records > 0:
		parts = append(parts, fmt.Sprintf("%s in Kafka, of all sessions, that the pollers have not applied", count(int(w.Records), "record")))
	}
	switch {
	case w.TemporalUnknown != "":
		parts = append(parts, "in Temporal not known: "+w.TemporalUnknown)
	case w.Workflow != "":
		parts = append(parts, "in Temporal "+w.Workflow)
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, "; ")
}
