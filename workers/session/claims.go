package session

import (
	"context"
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/retry"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Claims are contested claims, as the store keeps them.
type Claims interface {
	// ReviewClaims honours those whose holder has let go, and returns the sessions of
	// which one ended.
	ReviewClaims(ctx context.Context) ([]string, error)
	OpenClaims(ctx context.Context) ([]store.OpenClaim, error)
}

// reviewEvery is the time between two looks at contested claims: how long one waits
// at most after its device's holder has let go. Every worker looks, and a look costs a
// query where there is none.
const reviewEvery = 10 * time.Second

// newClaimGauge counts the claims that wait.
func newClaimGauge(r prometheus.Registerer) (prometheus.Gauge, error) {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "rollcall_session_contested_claims", Help: "Contested claims that wait for the device's present session to let go, or for a person. Every worker shows all.",
	})
	if r == nil {
		return g, nil
	}
	return g, r.Register(g)
}

// reviewClaims looks until ctx is cancelled. What it cannot do now it does at the next
// look.
func (w *Worker) reviewClaims(ctx context.Context) {
	if w.options.Claims == nil {
		return
	}
	known := map[string]store.OpenClaim{}
	failing := false
	for retry.Sleep(ctx, reviewEvery) == nil {
		now, err := w.review(ctx, known)
		switch {
		case err == nil:
			known, failing = now, false
		case !failing && ctx.Err() == nil:
			failing = true
			w.options.Logger.WarnContext(ctx, "contested claims were not reviewed: trying again", "err", err)
		}
	}
}

// review looks once. It has the sessions read again whose status cards show a claim
// that is new or has ended since, and returns the claims that are open.
func (w *Worker) review(ctx context.Context, known map[string]store.OpenClaim) (map[string]store.OpenClaim, error) {
	ended, err := w.options.Claims.ReviewClaims(ctx)
	if err != nil {
		return nil, err
	}
	open, err := w.options.Claims.OpenClaims(ctx)
	if err != nil {
		return nil, err
	}
	w.claims.Set(float64(len(open)))
	tell := map[string]bool{}
	for _, session := range ended {
		tell[session] = true
		w.options.Logger.InfoContext(ctx, "a contested claim of the session ended", "session", session)
	}
	now := make(map[string]store.OpenClaim, len(open))
	for _, c := range open {
		if now[c.ID] = c; known[c.ID] != c {
			tell[c.Session], tell[c.Holder] = true, true
		}
	}
	for id, c := range known {
		if _, ok := now[id]; !ok {
			tell[c.Session], tell[c.Holder] = true, true
		}
	}
	delete(tell, "")
	for session := range maps.Keys(tell) {
		// A session that does not run reads it when its next event starts it.
		_ = w.options.Client.SignalWorkflow(ctx, device.WorkflowID(session), "", workflows.SignalTestState, nil)
	}
	return now, nil
}
