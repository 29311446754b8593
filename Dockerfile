# Images of the two binaries. Each holds one static binary, the certificate
# authorities and nothing else: no shell, no package manager, no root.
#
#   docker build --target rollcall -t rollcall .
#   docker build --target rollcall-edge -t rollcall-edge .
#
# Health checks run the binary's own healthcheck command.
#
# The tag names a version, and a registry may move it. For a release give the
# digest that you have verified (docs/release.md):
#
#   --build-arg GO_IMAGE=golang:1.26.8-bookworm@sha256:…
ARG GO_IMAGE=golang:1.26.8-bookworm

FROM ${GO_IMAGE} AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOTOOLCHAIN=local
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=(container)
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go build -trimpath -buildvcs=false -o /out/ \
      -ldflags "-s -w -X 'github.com/rollcall-platform/rollcall/internal/cli.version=${VERSION}'" \
      ./cmd/rollcall ./cmd/rollcall-edge
# A named volume takes the owner of the directory it is first mounted over.
RUN mkdir -p /out/data

FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
USER 65532:65532

FROM base AS rollcall
COPY --from=build /out/rollcall /rollcall
ENTRYPOINT ["/rollcall"]

FROM base AS rollcall-edge
COPY --from=build --chown=65532:65532 /out/data /var/lib/rollcall-edge
COPY --from=build /out/rollcall-edge /rollcall-edge
ENTRYPOINT ["/rollcall-edge"]
