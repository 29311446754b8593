package session

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Version is a version of a Worker Deployment: which builds belong together,
// and which of them this is. The zero Version is none.
type Version struct {
	Deployment string
	BuildID    string
}

// Unversioned is the text of no Version.
const Unversioned = "unversioned"

// String is the version as Temporal writes it, DEPLOYMENT:BUILD.
func (v Version) String() string {
	if v == (Version{}) {
		return Unversioned
	}
	return v.Deployment + ":" + v.BuildID
}

// Check reports what the server would not take, nor a query for the sessions of
// the version. The zero Version is fine.
func (v Version) Check() error {
	switch {
	case v == (Version{}):
		return nil
	case v.Deployment == "" || v.BuildID == "":
		return errors.New("a deployment and a build ID go together: give both or neither")
	case strings.ContainsAny(v.Deployment, ".:"):
		return fmt.Errorf("deployment %q: its name must hold neither . nor : anywhere", v.Deployment)
	case strings.HasPrefix(v.Deployment, "__") || strings.HasPrefix(v.BuildID, "__"):
		return errors.New("names that begin with __ are the server's own")
	}
	for _, name := range []string{v.Deployment, v.BuildID} {
		if len(name) > maxName {
			return fmt.Errorf("%.20q… is longer than %d bytes", name, maxName)
		}
		if i := strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("'\"`\\", r) }); i >= 0 {
			return fmt.Errorf("%q: only ASCII without spaces and quotes", name)
		}
	}
	return nil
}

// maxName keeps both names, and the identifiers that the server makes of them,
// within its limit of 1,000.
const maxName = 200

// options: a session stays on the version it runs on, until it continues as new.
func (v Version) options() worker.DeploymentOptions {
	if v == (Version{}) {
		return worker.DeploymentOptions{}
	}
	return worker.DeploymentOptions{
		UseVersioning:             true,
		Version:                   worker.WorkerDeploymentVersion{DeploymentName: v.Deployment, BuildID: v.BuildID},
		DefaultVersioningBehavior: workflow.VersioningBehaviorPinned,
	}
}

// register shows the version among the metrics.
func (v Version) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rollcall_session_worker_info", Help: "1; the labels say which Worker Deployment version this worker is, empty if it is unversioned.",
	}, []string{"deployment", "build_id"})
	info.WithLabelValues(v.Deployment, v.BuildID).Set(1)
	return r.Register(info)
}
