package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/internal/verify"
	"github.com/rollcall-platform/rollcall/workers/session/control"
)

type verifyCmd struct {
	Database     databaseFlags `embed:"" group:"database"`
	requestFlags `embed:""`
	Temporal     temporalFlags `embed:"" group:"temporal"`
	Output       outputFlag    `short:"o" help:"Print a ${enum}." enum:"table,json" default:"table"`
	RAE          []string      `help:"Only sessions on the RAE with this serial. May be repeated." sep:"none" placeholder:"SERIAL"`
	Session      []string      `help:"Only this session, or the current one of this device. May be repeated." sep:"none" placeholder:"DEVICE"`
	NoEdge       bool          `help:"Ask no RAE: compare only workflow and database."`
	Parallel     int           `help:"How many sessions to verify at a time; of one RAE, four at most." default:"8"`
	Repair       bool          `help:"Have each session that differs take what the database has, and ask its RAE for a snapshot; then verify it again."`
	RepairRate   float64       `help:"How many sessions are repaired in a second, at most." default:"5"`
	Timeout      time.Duration `help:"Wait this long for a RAE's reply, and then as long for its snapshot to be applied." default:"1m"`
}

// Help is printed by verify --help.
func (*verifyCmd) Help() string {
	return `Compares every open session's record at the edge, in its workflow and in the database, by hash, and names the attributes that differ, with their values. Each RAE is asked for a snapshot of each of its sessions. Open sessions are those that are open in the database, and those whose workflow runs though the database has no row of them.

A session is "equal", has "drift", or is "unreachable": a side could not be asked, so that nothing is known. Exits 0 when all are equal, 1 when not, 3 when there is no session to verify.

With --repair each session that differs, after a fail-over or with a restored backup, reads the database anew and asks its RAE for a snapshot. What was found, what the database had lost and what the session came to is printed for each; the exit code is that of what they came to.

Examples:

    rollcall verify

    rollcall verify --repair --repair-rate 2

    rollcall verify --rae RAE-0042 -o json | jq '.results[] | select(.verdict != "equal")'

    rollcall verify --session living-room-tv --no-edge`
}

// Validate is called by kong before anything starts.
func (c *verifyCmd) Validate() error {
	if c.Parallel < 1 || c.Timeout <= 0 || c.RepairRate <= 0 {
		return errors.New("--parallel must be at least 1, --timeout and --repair-rate more than 0")
	}
	return errors.Join(checkRAE(c.RAE...), c.Database.validate(), c.Kafka.validate(), c.Temporal.validate())
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
		if err := hintRAE(ctx, env, db, c.RAE...); err != nil {
			return err
		}
		sessions, err := verify.Select(ctx, db, control.Client{Temporal: temporal}, verify.Selection{Devices: c.Session, RAEs: c.RAE})
		if errors.Is(err, verify.ErrNoSession) {
			return &cli.Error{Code: cli.ExitNotFound, Err: err}
		}
		if err != nil {
			return err
		}
		options := verify.Options{Workflows: control.Client{Temporal: temporal}, Database: db, Parallel: c.Parallel, Timeout: c.Timeout}
		if c.Repair {
			options.Repairs, options.RepairRate = control.Client{Temporal: temporal}, c.RepairRate
		}
		if !c.NoEdge {
			opening, cancel := context.WithTimeoutCause(ctx, tryTimeout, fmt.Errorf("no answer from Kafka within %s", tryTimeout))
			requester, err := c.requester(opening, env)
			cancel()
			if err != nil {
				return err
			}
			defer requester.Close()
			options.Edge = verify.RAEs{Requester: requester}
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
