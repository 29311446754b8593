package rollout_test

import (
	"context"

	"go.temporal.io/sdk/client"
)

// unanswering is a client whose first request to make a version current gets no
// answer, whether it was made or not.
type unanswering struct {
	client.Client
	made  bool
	asked int
}

func (u *unanswering) WorkerDeploymentClient() client.WorkerDeploymentClient {
	return unansweringDeployments{u.Client.WorkerDeploymentClient(), u}
}

type unansweringDeployments struct {
	client.WorkerDeploymentClient
	u *unanswering
}

func (d unansweringDeployments) GetHandle(name string) client.WorkerDeploymentHandle {
	return unansweringHandle{d.WorkerDeploymentClient.GetHandle(name), d.u}
}

type unansweringHandle struct {
	client.WorkerDeploymentHandle
	u *unanswering
}

func (h unansweringHandle) SetCurrentVersion(ctx context.Context, o client.WorkerDeploymentSetCurrentVersionOptions) (client.WorkerDeploymentSetCurrentVersionResponse, error) {
	h.u.asked++
	first := h.u.asked == 1
	if first && !h.u.made {
		return client.WorkerDeploymentSetCurrentVersionResponse{}, context.DeadlineExceeded
	}
	r, err := h.WorkerDeploymentHandle.SetCurrentVersion(ctx, o)
	if first && err == nil {
		return client.WorkerDeploymentSetCurrentVersionResponse{}, context.DeadlineExceeded
	}
	return r, err
}
