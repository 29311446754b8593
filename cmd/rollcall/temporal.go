package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/log"
	"google.golang.org/grpc"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/sdkmetrics"
)

// temporalFlags say how to reach Temporal. They are the most used of the
// settings that contrib/envconfig reads, so that one environment or profile
// serves this command and the Temporal CLI.
type temporalFlags struct {
	Address    string `name:"temporal-address" help:"Frontend of the Temporal server. Default: that of the profile, else localhost:7233." env:"TEMPORAL_ADDRESS" placeholder:"HOST:PORT"`
	Namespace  string `name:"temporal-namespace" help:"Namespace. Default: that of the profile, else default." env:"TEMPORAL_NAMESPACE" placeholder:"NAME"`
	Profile    string `name:"temporal-profile" help:"Profile of the configuration file." env:"TEMPORAL_PROFILE" placeholder:"NAME"`
	ConfigFile string `name:"temporal-config-file" help:"TOML file of profiles. Default: the Temporal CLI's." env:"TEMPORAL_CONFIG_FILE" placeholder:"FILE"`
}

func (t *temporalFlags) validate() error {
	if t.Address != "" {
		if err := checkHostPort(t.Address); err != nil {
			return fmt.Errorf("--temporal-address: %w", err)
		}
	}
	_, err := t.options(slog.New(slog.DiscardHandler))
	return err
}

// AfterApply is called by kong. It tells of an address that is neither given nor
// in the profile.
func (t *temporalFlags) AfterApply(flags *cli.Flags) error {
	o, err := t.load()
	if err == nil && t.Address == "" && o.HostPort == "" { // an error is Validate's to tell
		flags.AddDefault(cli.Default{Flag: "--temporal-address", Value: client.DefaultHostPort, Env: []string{"TEMPORAL_ADDRESS"}})
	}
	return nil
}

// load reads the profile and the environment.
func (t *temporalFlags) load() (client.Options, error) {
	return envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{
		ConfigFilePath: t.ConfigFile, ConfigFileProfile: t.Profile, ConfigFileStrict: true,
	})
}

func (t *temporalFlags) options(logger *slog.Logger) (client.Options, error) {
	o, err := t.load()
	if err != nil {
		return client.Options{}, fmt.Errorf("temporal settings (TEMPORAL_ variables, profile): %w", err)
	}
	if t.Address != "" {
		o.HostPort = t.Address
	}
	if o.HostPort == "" {
		o.HostPort = client.DefaultHostPort
	}
	if t.Namespace != "" {
		o.Namespace = t.Namespace
	}
	if o.Namespace == "" {
		o.Namespace = client.DefaultNamespace
	}
	// What goes over this connection is small and already compact: gzip costs
	// more CPU than the bytes are worth.
	o.ConnectionOptions.GrpcCompression = &client.GrpcCompressionNone{}
	o.Logger = log.NewStructuredLogger(logger)
	return o, nil
}

// dialTemporal returns a client, and its namespace, when the server answers and
// has that namespace.
func (s *service) dialTemporal(ctx context.Context, flags *temporalFlags, with ...grpc.DialOption) (c client.Client, namespace string, err error) {
	o, err := flags.options(s.logger)
	if err != nil {
		return nil, "", err
	}
	o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, with...)
	if o.MetricsHandler, err = sdkmetrics.New(s.registry); err != nil {
		return nil, "", err
	}
	if c, err = client.NewLazyClient(o); err != nil {
		return nil, "", fmt.Errorf("temporal client: %w", err)
	}
	err = s.await(ctx, dependency{
		name: "temporal", where: o.HostPort + " namespace " + o.Namespace,
		hint: "start the Temporal server, or set TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE",
		try:  describeNamespace(c, o.Namespace),
	})
	if err != nil {
		c.Close()
		return nil, "", err
	}
	return c, o.Namespace, nil
}

// dial returns a client, and its namespace, for a command that does not wait for
// a server that is away.
func (t *temporalFlags) dial(ctx context.Context, logger *slog.Logger) (client.Client, string, error) {
	o, err := t.options(logger)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, tryTimeout, fmt.Errorf("no answer within %s", tryTimeout))
	defer cancel()
	c, err := client.DialContext(ctx, o)
	if err != nil {
		return nil, "", fmt.Errorf("temporal at %s: %w", o.HostPort, err)
	}
	if err := describeNamespace(c, o.Namespace)(ctx); err != nil {
		c.Close()
		return nil, "", fmt.Errorf("temporal at %s: %w", o.HostPort, err)
	}
	return c, o.Namespace, nil
}

// describeNamespace fails until the server answers and has the namespace.
func describeNamespace(c client.Client, namespace string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
		if missing := (*serviceerror.NamespaceNotFound)(nil); errors.As(err, &missing) {
			return fmt.Errorf("the server has no namespace %s; create it with: temporal operator namespace create --namespace %s", namespace, namespace)
		}
		return err
	}
}
