package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/request"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/internal/verify"
	"github.com/rollcall-platform/rollcall/workflows"
)

type verifyCmd struct {
	Database      databaseFlags `embed:"" group:"database"`
	Kafka         kafkaFlags    `embed:"" group:"kafka"`
	Temporal      temporalFlags `embed:"" group:"temporal"`
	Output        outputFlag    `short:"o" help:"Print a ${enum}." enum:"table,json" default:"table"`
	RAE           []string      `help:"Only sessions on the RAE with this serial. May be repeated." sep:"none" placeholder:"SERIAL"`
	Session       []string      `help:"Only this session, or the current one of this device. May be repeated." sep:"none" placeholder:"DEVICE"`
	NoEdge        bool          `help:"Ask no RAE: compare only workflow and database."`
	Parallel      int           `help:"How many sessions to verify at a time; of one RAE's, four at most." default:"8"`
	Timeout       time.Duration `help:"Wait so long for a RAE's reply, and then so long for its snapshot to be applied." default:"1m"`
	CommandsTopic string        `help:"Kafka topic of the commands." default:"rollcall.device-commands" env:"ROLLCALL_COMMANDS_TOPIC"`
	RepliesTopic  string        `help:"Kafka topic of the replies." default:"rollcall.device-replies" env:"ROLLCALL_REPLIES_TOPIC"`
}

// Help is printed by verify --help.
func (*verifyCmd) Help() string {
	return `Compares every open session's record at the edge, in its workflow and in the database, by hash, and names the attributes that differ, with their values. Each RAE is asked for a snapshot of each of its sessions. Open sessions are those that are open in the database, and those whose workflow runs though the database has no row of them.

A session is "equal", has "drift", or is "unreachable": a side could not be asked, so that nobody knows. Exits 0 when all are equal, 1 when not, 3 when there is no session to verify.

Examples:

    rollcall verify

    rollcall verify --rae RAE-0042 -o json | jq '.results[] | select(.verdict != "equal")'

    rollcall verify --session living-room-tv --no-edge`
}

// Validate is called by kong before anything starts.
func (c *verifyCmd) Validate() error {
	if c.Parallel < 1 || c.Timeout <= 0 {
		return errors.New("--parallel must be at least 1, --timeout more than 0")
	}
	return errors.Join(c.Database.validate(), c.Kafka.validate(), c.Temporal.validate())
}

// Run verifies, and prints each result as it comes.
func (c *verifyCmd) Run(ctx context.Context, env cli.Env) error {
	query := queryFlags{Database: c.Database, Timeout: tryTimeout}
	return query.work(ctx, func(ctx context.Context, db *store.Store) error {
		temporal, _, err := c.Temporal.dial(ctx, env.Logger)
		if err != nil {
			return err
		}
		defer temporal.Close()
		sessions, err := c.sessions(ctx, db, temporal)
		if err != nil {
			return err
		}
		options := verify.Options{Workflows: sessionWorkflows{temporal}, Database: db, Parallel: c.Parallel, Timeout: c.Timeout}
		if !c.NoEdge {
			edge, err := c.edge(ctx, env)
			if err != nil {
				return err
			}
			defer edge.requester.Close()
			options.Edge = edge
		}
		v, err := verify.New(options)
		if err != nil {
			return err
		}
		return c.verify(ctx, env, v, sessions)
	})
}

// verified is what verify prints as JSON.
type verified struct {
	verify.Summary
	Results []verify.Result `json:"results"`
}

func (c *verifyCmd) verify(ctx context.Context, env cli.Env, v *verify.Verifier, sessions []verify.Session) error {
	var done atomic.Int64
	stop := progress(env.Stderr, &done, sessions)
	defer stop()
	out := verified{Results: []verify.Result{}}
	var printing error
	err := v.Run(ctx, sessions, func(r verify.Result) {
		done.Add(1)
		out.Add(r)
		if c.Output == "json" {
			out.Results = append(out.Results, r)
			return
		}
		_, err := io.WriteString(env.Stdout, resultText(r))
		printing = cmp.Or(printing, err)
	})
	stop()
	if c.Output == "json" && err == nil {
		printing = c.Output.write(env.Stdout, out, nil)
	} else if c.Output != "json" {
		_, failed := fmt.Fprintf(env.Stdout, "%s\n", summaryText(out.Summary))
		printing = cmp.Or(printing, failed)
	}
	switch {
	case err != nil:
		return fmt.Errorf("stopped after %d of %d sessions: %w", out.Sessions, len(sessions), err)
	case printing != nil:
		return printing
	case !out.OK():
		return fmt.Errorf("%d of %d sessions are not known to be equal", out.Sessions-out.Equal, out.Sessions)
	}
	return nil
}

// sessions are those to verify, and there are some.
func (c *verifyCmd) sessions(ctx context.Context, db *store.Store, temporal client.Client) ([]verify.Session, error) {
	var out []verify.Session
	for _, ref := range c.Session {
		d, err := db.GetDevice(ctx, ref)
		if err != nil {
			return nil, err
		}
		if len(c.RAE) == 0 || slices.Contains(c.RAE, d.RAE) {
			out = append(out, verify.Session{ID: d.Session, RAE: d.RAE, Closed: d.Closed > 0})
		}
	}
	for after, more := "", len(c.Session) == 0; more; {
		page, err := db.OpenSessions(ctx, c.RAE, after, store.MaxLimit)
		if err != nil {
			return nil, err
		}
		for _, s := range page {
			out, after = append(out, verify.Session{ID: s.Session, RAE: s.RAE}), s.Session
		}
		more = len(page) == store.MaxLimit
	}
	if len(c.Session) == 0 {
		rowless, err := c.rowless(ctx, db, temporal)
		if err != nil {
			return nil, err
		}
		out = append(out, rowless...)
	}
	if len(out) == 0 {
		return nil, cli.NotFoundf("no open session to verify%s", onRAEs(c.RAE))
	}
	return out, nil
}

// rowless are sessions whose workflow runs and says that the database has
// something of it, and that the database does not have.
func (c *verifyCmd) rowless(ctx context.Context, db *store.Store, temporal client.Client) ([]verify.Session, error) {
	var out []verify.Session
	request := &workflowservice.ListWorkflowExecutionsRequest{
		Query: fmt.Sprintf("WorkflowType = '%s' AND ExecutionStatus = 'Running'", workflows.DeviceSessionName), PageSize: 1000,
	}
	for more := true; more; more = len(request.NextPageToken) > 0 {
		page, err := temporal.ListWorkflow(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("list workflows: %w", err)
		}
		request.NextPageToken = page.GetNextPageToken()
		var running []string
		for _, e := range page.GetExecutions() {
			if id := strings.TrimPrefix(e.GetExecution().GetWorkflowId(), device.WorkflowID("")); device.CheckSession(id) == nil {
				running = append(running, id)
			}
		}
		known, err := db.Known(ctx, running)
		if err != nil {
			return nil, err
		}
		for _, id := range running {
			if _, ok := known[id]; ok {
				continue
			}
			// One that cannot be asked is not known to be new.
			asking, cancel := context.WithTimeout(ctx, tryTimeout)
			view, err := (sessionWorkflows{temporal}).view(asking, id)
			cancel()
			if errors.Is(err, verify.ErrGone) || err == nil && view.AsOf == 0 || len(c.RAE) > 0 && !slices.Contains(c.RAE, view.RAE) {
				continue
			}
			out = append(out, verify.Session{ID: id, RAE: view.RAE})
		}
	}
	return out, nil
}

func onRAEs(serials []string) string {
	if len(serials) == 0 {
		return ""
	}
	return " on RAE " + strings.Join(serials, ", ")
}

func (c *verifyCmd) edge(ctx context.Context, env cli.Env) (*edges, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, tryTimeout, fmt.Errorf("no answer within %s", tryTimeout))
	defer cancel()
	r, err := request.Open(ctx, request.Options{
		Kafka: c.Kafka.options("cli"), KafkaOpts: []kgo.Opt{kgo.WithLogger(kafkaLogger{env.Logger})},
		CommandsTopic: c.CommandsTopic, RepliesTopic: c.RepliesTopic, Logger: env.Logger,
	})
	return &edges{r}, err
}

// edges asks RAEs over Kafka.
type edges struct{ requester *request.Requester }

// Snapshot implements verify.Edge.
func (e *edges) Snapshot(ctx context.Context, s verify.Session) (device.Reply, error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return e.requester.Ask(ctx, device.Command{
		ID: uuid.NewString(), Source: device.CommandSource("verify"), RAE: s.RAE, Session: s.ID,
		Action: device.ActionSnapshot, Time: now, Expires: now.Add(verify.CommandLife), Reason: "verify",
	})
}

// sessionWorkflows asks workflows by query.
type sessionWorkflows struct{ temporal client.Client }

// State implements verify.Workflows.
func (w sessionWorkflows) State(ctx context.Context, session string) (verify.State, error) {
	view, err := w.view(ctx, session)
	if err != nil {
		return verify.State{}, err
	}
	out := verify.State{AsOf: view.AsOf, Snapshot: view.Snapshot, Closed: view.Closed, Missing: view.Missing, Attributes: view.Attributes}
	if c := view.Check; c != nil {
		out.Check = &verify.Check{Seq: c.Seq, Edge: c.Edge, Cloud: c.Cloud, Drift: c.Drift}
	}
	return out, nil
}

func (w sessionWorkflows) view(ctx context.Context, session string) (view workflows.StateView, err error) {
	value, err := w.temporal.QueryWorkflow(ctx, device.WorkflowID(session), "", workflows.QueryState)
	if absent := (*serviceerror.NotFound)(nil); errors.As(err, &absent) {
		return view, verify.ErrGone
	}
	if err != nil {
		return view, err
	}
	if err := value.Get(&view); err != nil {
		return view, fmt.Errorf("answer to query %s: %w", workflows.QueryState, err)
	}
	return view, nil
}

// progressEvery is how often a run that takes long says how far it is.
const progressEvery = 5 * time.Second

// progress says how many sessions there are, and until the returned function is
// called, now and then, how many are done.
func progress(w io.Writer, done *atomic.Int64, sessions []verify.Session) (stop func()) {
	raes := map[string]bool{}
	for _, s := range sessions {
		raes[s.RAE] = true
	}
	_, _ = fmt.Fprintf(w, "verifying %s on %s\n", count(len(sessions), "session"), count(len(raes), "RAE"))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_, _ = fmt.Fprintf(w, "%d of %d\n", done.Load(), len(sessions))
			}
		}
	}()
	return func() { cancel(); <-ended }
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
