package check

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
)

// Stack is the Cloud of a running platform.
type Stack struct {
	DB       *pgx.Conn
	Temporal client.Client
	Kafka    *kgo.Client

	DeadLetterTopic string
}

var _ Cloud = Stack{}

// Sessions implements Cloud.
func (s Stack) Sessions(ctx context.Context, rae string) ([]string, error) {
	rows, err := s.DB.Query(ctx, `SELECT session_id::text FROM device_session WHERE rae = $1 ORDER BY session_id`, rae)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Tables implements Cloud.
func (s Stack) Tables(ctx context.Context, session string) (Record, bool, error) {
	r := Record{Session: session, Attributes: map[string]Attribute{}}
	err := s.DB.QueryRow(ctx, `SELECT rae, as_of_seq, closed_seq > 0, missing::text FROM device_session WHERE session_id = $1`, session).
		Scan(&r.RAE, &r.Seq, &r.Closed, &r.Missing)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	if r.Missing == "[]" {
		r.Missing = ""
	}
	rows, err := s.DB.Query(ctx, `SELECT name, value::text, seq FROM device_attribute WHERE session_id = $1 AND value IS NOT NULL`, session)
	if err != nil {
		return r, false, err
	}
	var name, value string
	var seq int64
	_, err = pgx.ForEachRow(rows, []any{&name, &value, &seq}, func() error {
		r.Attributes[name] = Attribute{Value: json.RawMessage(value), Seq: seq}
		return nil
	})
	return r, err == nil, err
}

// Workflow implements Cloud.
func (s Stack) Workflow(ctx context.Context, session string) (Record, bool, error) {
	value, err := s.Temporal.QueryWorkflow(ctx, "device-session-"+session, "", "state")
	var absent *serviceerror.NotFound
	if errors.As(err, &absent) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, err
	}
	var answer struct {
		RAE        string               `json:"rae"`
		Seq        int64                `json:"as_of_seq"`
		Closed     json.RawMessage      `json:"closed"`
		Missing    json.RawMessage      `json:"missing"`
		Attributes map[string]Attribute `json:"attributes"`
	}
	if err := value.Get(&answer); err != nil {
		return Record{}, false, err
	}
	r := Record{RAE: answer.RAE, Session: session, Seq: answer.Seq, Attributes: answer.Attributes}
	switch string(answer.Closed) {
	case "", "null", "false", "0":
	default:
		r.Closed = true
	}
	switch m := string(answer.Missing); m {
	case "", "null", "[]":
	default:
		r.Missing = m
	}
	return r, true, nil
}

// DeadLetters implements Cloud.
func (s Stack) DeadLetters(ctx context.Context) (int64, error) {
	admin := kadm.NewClient(s.Kafka)
	start, err := admin.ListStartOffsets(ctx, s.DeadLetterTopic)
	if err != nil {
		return 0, err
	}
	end, err := admin.ListEndOffsets(ctx, s.DeadLetterTopic)
	if err != nil {
		return 0, err
	}
	var n int64
	end.Each(func(o kadm.ListedOffset) {
		if first, ok := start.Lookup(o.Topic, o.Partition); ok {
			n += o.Offset - first.Offset
		}
	})
	return n, nil
}
