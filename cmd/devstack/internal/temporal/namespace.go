package temporal

import (
	"context"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

// readyTimeout bounds the wait for a started server to answer, whatever the
// caller's context allows.
const readyTimeout = 60 * time.Second

// prepareNamespace waits until the namespace answers and visibility can be
// queried, and brings an existing namespace up to what Options ask for.
func prepareNamespace(ctx context.Context, o *Options) (err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	conn, err := grpc.NewClient(o.FrontendAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	workflows, operator := workflowservice.NewWorkflowServiceClient(conn), operatorservice.NewOperatorServiceClient(conn)

	var description *workflowservice.DescribeNamespaceResponse
	if err := poll(ctx, 20*time.Millisecond, func(ctx context.Context) (err error) {
		description, err = workflows.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: o.Namespace})
		return err
	}); err != nil {
		return fmt.Errorf("wait for the frontend on %s: %w", o.FrontendAddr, err)
	}
	if have := description.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(); have != o.Retention {
		o.Logger.InfoContext(ctx, "changing the retention of the Temporal namespace", "namespace", o.Namespace, "from", have, "to", o.Retention)
		if _, err := workflows.UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{
			Namespace: o.Namespace,
			Config:    &namespacepb.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(o.Retention)},
		}); err != nil {
			return fmt.Errorf("change the retention of namespace %q: %w", o.Namespace, err)
		}
	}
	if err := addSearchAttributes(ctx, operator, o); err != nil {
		return err
	}
	if err := poll(ctx, 20*time.Millisecond, func(ctx context.Context) error {
		_, err := workflows.CountWorkflowExecutions(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: o.Namespace})
		return err
	}); err != nil {
		return fmt.Errorf("wait for visibility: %w", err)
	}
	return nil
}

// addSearchAttributes registers what is missing and waits until it can be used.
func addSearchAttributes(ctx context.Context, operator operatorservice.OperatorServiceClient, o *Options) error {
	missing, err := missingSearchAttributes(ctx, operator, o)
	if err != nil || len(missing) == 0 {
		return err
	}
	if _, err := operator.AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace: o.Namespace, SearchAttributes: missing,
	}); err != nil {
		return fmt.Errorf("register search attributes: %w", err)
	}
	return poll(ctx, 50*time.Millisecond, func(ctx context.Context) error {
		missing, err := missingSearchAttributes(ctx, operator, o)
		if err == nil && len(missing) > 0 {
			err = fmt.Errorf("search attributes not visible yet: %v", missing)
		}
		return err
	})
}

func missingSearchAttributes(ctx context.Context, operator operatorservice.OperatorServiceClient, o *Options) (map[string]enumspb.IndexedValueType, error) {
	have, err := operator.ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: o.Namespace})
	if err != nil {
		return nil, fmt.Errorf("list search attributes: %w", err)
	}
	missing := make(map[string]enumspb.IndexedValueType)
	for name, want := range o.SearchAttributes {
		switch got, ok := have.GetCustomAttributes()[name]; {
		case !ok:
			missing[name] = want
		case got != want:
			return nil, fmt.Errorf("search attribute %s is registered as %s and should be %s: start with an empty data directory", name, got, want)
		}
	}
	return missing, nil
}
