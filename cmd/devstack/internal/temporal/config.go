package temporal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/primitives"
)

const (
	// clusterName and clusterID are written to the database on the first start
	// and must not change after it.
	clusterName = "active"
	clusterID   = "6f1d2f2e-8a0b-4c57-9d7e-0d7b6c1c9a51"
	storeName   = "sqlite"
)

// services are the four roles of a Temporal cluster, all of them in this process.
var services = []primitives.ServiceName{
	primitives.FrontendService,
	primitives.HistoryService,
	primitives.MatchingService,
	primitives.WorkerService,
}

// serverConfig builds the static configuration and the table of hosts that
// replaces the membership protocol.
func serverConfig(o *Options, a addresses, store *config.SQL) (*config.Config, map[primitives.ServiceName]static.Hosts, error) {
	inner, err := freePorts(a.host, len(services)-1)
	if err != nil {
		return nil, nil, err
	}
	ports := append([]int{a.frontendPort}, inner...)

	frontend := net.JoinHostPort(a.host, fmt.Sprint(a.frontendPort))
	cfg := &config.Config{
		Persistence: config.Persistence{
			DefaultStore:     storeName,
			VisibilityStore:  storeName,
			NumHistoryShards: 1,
			DataStores:       map[string]config.DataStore{storeName: {SQL: store}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{clusterName: {
				Enabled:                true,
				InitialFailoverVersion: 1,
				RPCAddress:             frontend,
				ClusterID:              clusterID,
			}},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		PublicClient:        config.PublicClient{HostPort: frontend},
		Services:            make(map[string]config.Service),
	}
	cfg.Global.Membership.MaxJoinDuration = 30 * time.Second
	cfg.Global.Membership.BroadcastAddress = a.host
	if o.MetricsAddr != "" {
		cfg.Global.Metrics = &metrics.Config{Prometheus: &metrics.PrometheusConfig{
			ListenAddress: o.MetricsAddr,
			HandlerPath:   "/metrics",
		}}
	}
	cfg.Archival.History.State = "disabled"
	cfg.Archival.Visibility.State = "disabled"
	cfg.NamespaceDefaults.Archival.History.State = "disabled"
	cfg.NamespaceDefaults.Archival.Visibility.State = "disabled"

	hosts := make(map[primitives.ServiceName]static.Hosts)
	for i, name := range services {
		cfg.Services[string(name)] = config.Service{RPC: config.RPC{GRPCPort: ports[i], BindOnIP: a.host}}
		hosts[name] = static.SingleLocalHost(net.JoinHostPort(a.host, fmt.Sprint(ports[i])))
	}
	return cfg, hosts, nil
}

// unlimited is a rate no single machine reaches. The server's limits protect
// tenants from each other; here there is one, and a ResourceExhausted should
// mean that a workflow is busy, not that a quota is small.
const unlimited = 100_000

// dynamicSettings are the server's run-time settings. Values must have the exact
// type of the setting: an int64 for an int is ignored.
func dynamicSettings() dynamicconfig.StaticClient {
	return dynamicconfig.StaticClient{
		// The default leaves finished tasks in the tables for 30 s, and the
		// queues' reads slow down with their number: with these three the
		// throughput stays level (451–458 cycles a second, against 375 sinking
		// to 157).
		dynamicconfig.TimerProcessorUpdateAckInterval.Key():    time.Second,
		dynamicconfig.TransferProcessorUpdateAckInterval.Key(): time.Second,
		dynamicconfig.TimerTaskBatchSize.Key():                 1000,

		dynamicconfig.FrontendRPS.Key():                                  unlimited,
		dynamicconfig.FrontendMaxNamespaceRPSPerInstance.Key():           unlimited,
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 1000,
		dynamicconfig.HistoryRPS.Key():                                   unlimited,
		dynamicconfig.MatchingRPS.Key():                                  unlimited,
		dynamicconfig.FrontendPersistenceMaxQPS.Key():                    unlimited,
		dynamicconfig.HistoryPersistenceMaxQPS.Key():                     unlimited,
		dynamicconfig.MatchingPersistenceMaxQPS.Key():                    unlimited,

		// Entries, of some KiB each: bounds the server's memory at the cost of
		// a read when more workflows than this are active.
		dynamicconfig.HistoryCacheHostLevelMaxSize.Key(): 8192,

		// Worker Deployments (pinned workflows that move to a new version at
		// continue-as-new) and what SDK 1.50 reports about its workers. Mostly
		// the defaults of this server version, pinned here because the session
		// worker depends on them.
		dynamicconfig.EnableDeploymentVersions.Key():                   true,
		dynamicconfig.FrontendEnableWorkerVersioningWorkflowAPIs.Key(): true,
		dynamicconfig.WorkerHeartbeatsEnabled.Key():                    true,

		// How soon a version without sessions counts as drained. The defaults,
		// three minutes each, wait for a visibility store that lags; this one
		// does not.
		dynamicconfig.VersionDrainageStatusVisibilityGracePeriod.Key(): 2 * time.Second,
		dynamicconfig.VersionDrainageStatusRefreshInterval.Key():       2 * time.Second,
	}
}

// freePorts returns n ports that were free a moment ago, for the services that
// only this process dials. All are held until the last is known, so that no two
// are the same. They lie below those that kernels choose (Linux: from 32768):
// one of these may be another process's by the time it is listened at, and then
// the server ends the process.
func freePorts(host string, n int) (ports []int, err error) {
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
	}()
	for tries := 0; len(ports) < n; tries++ {
		port := 10_000 + rand.IntN(22_768) //nolint:gosec // not a secret
		l, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil && tries < 1000 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find a free port for a Temporal service: %w", err)
		}
		listeners = append(listeners, l)
		ports = append(ports, port)
	}
	return ports, nil
}
