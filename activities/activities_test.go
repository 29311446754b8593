package activities_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/rollcall-platform/rollcall/activities"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
	"github.com/rollcall-platform/rollcall/workflows"
)

type fakeStore struct {
	updates []store.Update
	err     error
	state   device.State
	unknown bool // to Load
	// mismatch: it has another row than any update builds on.
	mismatch bool
	older    []string
	newer    string
	test     store.TestState
}

func (f *fakeStore) Rivals(context.Context, string) (store.Rivals, error) {
	return store.Rivals{Older: f.older, Newer: f.newer}, f.err
}

func (f *fakeStore) Apply(_ context.Context, u []store.Update) error {
	for _, u := range u {
		if f.mismatch {
			*u.Answer = store.Answer{Mismatch: true}
			continue
		}
		if u.New && !f.unknown {
			*u.Answer = store.Answer{Known: true}
			continue
		}
		if u.Opens || u.New {
			*u.Answer = store.Answer{Test: f.test}
		}
		if u.Opens {
			u.Answer.Rivals = store.Rivals{Older: f.older, Newer: f.newer}
		}
		f.updates = append(f.updates, u)
	}
	return f.err
}

func (f *fakeStore) Load(context.Context, string) (store.Stored, error) {
	return store.Stored{Found: !f.unknown, State: f.state, Positions: []device.Position{{Topic: "t", Next: 1}},
		Revision: store.Revision{Number: 5, ApplyID: "five"}, Test: f.test}, f.err
}

func environment(t *testing.T, s *fakeStore) *testsuite.TestActivityEnvironment {
	var suite testsuite.WorkflowTestSuite
	a, err := activities.New(activities.Options{
		Applier: activities.Direct{Store: s}, Loader: s, Registerer: prometheus.NewRegistry(), SearchAttributes: func() bool { return true },
	})
	require.NoError(t, err)
	env := suite.NewTestActivityEnvironment()
	a.Register(env)
	return env
}

func TestApplyBatch(t *testing.T) {
	refused := fmt.Errorf("apply: %w", store.ErrRefused)
	for _, tc := range []struct {
		name           string
		err            error
		quarantineOnly bool
		final          bool
	}{
		{name: "an outage is tried again", err: errors.New("connection refused")},
		{name: "a refusal is final", err: refused, final: true},
		{name: "but not of what only quarantines", err: refused, quarantineOnly: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := environment(t, &fakeStore{err: tc.err}).ExecuteActivity(workflows.ActivityApplyBatch, workflows.ApplyRequest{Session: "s", QuarantineOnly: tc.quarantineOnly})
			var a *temporal.ApplicationError
			require.ErrorAs(t, err, &a)
			require.Equal(t, tc.final, a.NonRetryable())
			require.Equal(t, tc.final, a.Type() == workflows.ErrRefused)
			require.Contains(t, err.Error(), tc.err.Error())
		})
	}
}

// A field that is added to one form and forgotten in the other would be lost
// without a sound.
func TestEveryFieldReachesTheStore(t *testing.T) {
	var in workflows.ApplyRequest
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	v := reflect.ValueOf(&in).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		switch f.Interface().(type) {
		case string:
			f.SetString(v.Type().Field(i).Name)
		case int64:
			f.SetInt(int64(i + 1))
		case time.Time:
			f.Set(reflect.ValueOf(at.Add(time.Duration(i) * time.Hour)))
		case device.SeqSet:
			f.Set(reflect.ValueOf(device.SeqSet{{From: int64(i + 1), To: int64(i + 1)}}))
		case []string:
			f.Set(reflect.ValueOf([]string{v.Type().Field(i).Name}))
		case map[string]device.Attribute:
			f.Set(reflect.ValueOf(map[string]device.Attribute{"a": {Value: []byte(`1`), Seq: 1, At: at}}))
		case []device.Position:
			f.Set(reflect.ValueOf([]device.Position{{Topic: "t", Partition: 1, Next: 2}}))
		case []workflows.Refusal:
			f.Set(reflect.ValueOf([]workflows.Refusal{{Topic: "t", Partition: 1, First: 2, Last: 3, Cause: "c", Detail: "d", At: at}}))
		case workflows.Revision:
			f.Set(reflect.ValueOf(workflows.Revision{Number: int64(i + 1), ApplyID: "base"}))
		case bool: // QuarantineOnly and NewSession: instructions, not data; IdentifiesDevice needs Temporal
		default:
			t.Fatalf("field %s of type %s: teach this test", v.Type().Field(i).Name, f.Type())
		}
	}
	s := &fakeStore{}
	_, err := environment(t, s).ExecuteActivity(workflows.ActivityApplyBatch, in)
	require.NoError(t, err)
	require.Len(t, s.updates, 1)
	out := reflect.ValueOf(s.updates[0])
	for i := range out.NumField() {
		name := out.Type().Field(i).Name
		if name == "Answer" || !out.Type().Field(i).IsExported() {
			continue
		}
		if other, ok := map[string]string{"New": "NewSession", "Opens": "IdentifiesDevice"}[name]; ok {
			name = other
		}
		want := v.FieldByName(name)
		require.True(t, want.IsValid(), "store.Update.%s has no counterpart", name)
		if refusals, ok := want.Interface().([]workflows.Refusal); ok {
			want = reflect.ValueOf([]store.Quarantined{store.Quarantined(refusals[0])})
		}
		if base, ok := want.Interface().(workflows.Revision); ok {
			want = reflect.ValueOf(store.Revision(base))
		}
		require.Equal(t, want.Interface(), out.Field(i).Interface(), name)
	}
	require.Equal(t, v.NumField()-1, out.NumField()-2, "all but QuarantineOnly, and but Answer and again")
}

// An apply that builds on another row than the database has is answered with what
// the database has.
func TestApplyOnAnotherRow(t *testing.T) {
	s := &fakeStore{mismatch: true, state: device.State{RAE: "RAE-1", Session: "s", AsOf: 7}}
	v, err := environment(t, s).ExecuteActivity(workflows.ActivityApplyBatch, workflows.ApplyRequest{Session: "s", ID: "x"})
	require.NoError(t, err)
	var loaded *workflows.LoadedSession
	require.NoError(t, v.Get(&loaded))
	require.True(t, loaded.Mismatch)
	require.True(t, loaded.Found)
	require.EqualValues(t, 7, loaded.State.AsOf)
	require.Equal(t, workflows.Revision{Number: 5, ApplyID: "five"}, loaded.Revision)
}

// The first apply of a session that is new is also its load; one that is not
// new is only loaded.
func TestApplyOfANewSession(t *testing.T) {
	apply := func(s *fakeStore) (loaded *workflows.LoadedSession) {
		v, err := environment(t, s).ExecuteActivity(workflows.ActivityApplyBatch, workflows.ApplyRequest{Session: "s", NewSession: true})
		require.NoError(t, err)
		require.NoError(t, v.Get(&loaded))
		return loaded
	}
	s := &fakeStore{unknown: true}
	loaded := apply(s)
	require.False(t, loaded.Found)
	require.True(t, loaded.SearchAttributes)
	require.Len(t, s.updates, 1)

	s = &fakeStore{state: device.State{AsOf: 7}}
	loaded = apply(s)
	require.True(t, loaded.Found)
	require.EqualValues(t, 7, loaded.State.AsOf)
	require.Empty(t, s.updates)

	s = &fakeStore{err: errors.New("connection refused")}
	_, err := environment(t, s).ExecuteActivity(workflows.ActivityApplyBatch, workflows.ApplyRequest{Session: "s", NewSession: true})
	require.ErrorContains(t, err, "connection refused")
	require.Empty(t, s.updates)
}

func TestLoadSession(t *testing.T) {
	s := &fakeStore{state: device.State{AsOf: 7}}
	v, err := environment(t, s).ExecuteActivity(workflows.ActivityLoadSession, "s")
	require.NoError(t, err)
	var loaded workflows.LoadedSession
	require.NoError(t, v.Get(&loaded))
	require.True(t, loaded.Found)
	require.True(t, loaded.SearchAttributes)
	require.EqualValues(t, 7, loaded.State.AsOf)

	s.err = errors.New("connection refused")
	_, err = environment(t, s).ExecuteActivity(workflows.ActivityLoadSession, "s")
	require.ErrorContains(t, err, "connection refused")
}

// Whoever begins, and whoever asks, learns the device's test state; one of which
// nobody has said anything is available.
func TestTestStateReachesTheWorkflow(t *testing.T) {
	until := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		want workflows.TestState
		s    *fakeStore
	}{
		{workflows.TestState{State: "available"}, &fakeStore{unknown: true}},
		{workflows.TestState{State: "in_test", Holder: "jana", Until: until}, &fakeStore{
			unknown: true, test: store.TestState{State: store.StateInTest, Holder: "jana", Reason: "smoke", Since: until.Add(-time.Hour), LeaseUntil: until},
		}},
	} {
		want, s := c.want, c.s
		env := environment(t, s)
		var loaded workflows.LoadedSession
		v, err := env.ExecuteActivity(workflows.ActivityApplyBatch, workflows.ApplyRequest{Session: one, NewSession: true})
		require.NoError(t, err)
		require.NoError(t, v.Get(&loaded))
		require.Equal(t, &want, loaded.TestState)

		v, err = env.ExecuteActivity(workflows.ActivityLoadSession, one)
		require.NoError(t, err)
		loaded = workflows.LoadedSession{}
		require.NoError(t, v.Get(&loaded))
		require.Equal(t, &want, loaded.TestState)

		v, err = env.ExecuteActivity(workflows.ActivityReadTestState, one)
		require.NoError(t, err)
		var got workflows.TestState
		require.NoError(t, v.Get(&got))
		require.Equal(t, want, got)

		s.err = errors.New("connection refused")
		_, err = env.ExecuteActivity(workflows.ActivityReadTestState, one)
		require.ErrorContains(t, err, "connection refused")
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	_, err := activities.New(activities.Options{Loader: &fakeStore{}})
	require.ErrorContains(t, err, "Applier")
	_, err = activities.New(activities.Options{Applier: activities.Direct{}})
	require.ErrorContains(t, err, "Loader")
}
