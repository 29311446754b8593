#!/usr/bin/env bash
# Builds the release of the commit that is checked out into dist/, and writes
# nowhere else: an archive and an SBOM (CycloneDX) of each binary for each
# architecture, and SHA256SUMS. The same commit and the same Go give the same
# files. docs/release.md says how to cut a release.
#
#   ARCHITECTURES   default "amd64 arm64 armv7"
#   CYCLONEDX       cyclonedx-gomod (make release builds it)
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "$(git status --porcelain)" ]; then
    printf 'The work tree differs from its commit: a release is of a commit.\n' >&2
    git status --short >&2
    exit 1
fi
version=$(git describe --tags --match 'v[0-9]*' --always)
# Times in the archives are the commit's.
time=@$(git log -1 --format=%ct)

# What the environment could change in the binaries.
export CGO_ENABLED=0 GOOS=linux GOARM=7 GOAMD64=v1 GOARM64=v8.0 GOEXPERIMENT= GOFLAGS=
package=github.com/rollcall-platform/rollcall/internal/cli

rm -rf dist
mkdir dist
stage=dist/.stage
for arch in ${ARCHITECTURES:-amd64 arm64 armv7}; do
    for binary in rollcall rollcall-edge; do
        name=${binary}_${version}_linux_$arch
        printf '  %s\n' "$name"
        mkdir -p "$stage/$name"
        GOARCH=${arch%v7} go build -trimpath -buildvcs=false \
            -ldflags "-s -w -buildid= -X $package.version=$version" -o "$stage/$name/$binary" "./cmd/$binary"
        cp LICENSE CHANGELOG.md "$stage/$name/"
        [ "$binary" != rollcall ] || cp deploy/rollcall.example.yaml "$stage/$name/"
        # The modes of the files do not depend on the umask.
        tar --create --directory "$stage" --sort=name --mtime="$time" --owner=0 --group=0 --numeric-owner \
            --mode='u=rwX,go=rX' --format=ustar "$name" | gzip --no-name --best >"dist/$name.tar.gz"
        "${CYCLONEDX:-cyclonedx-gomod}" bin -json -std -noserial -notimestamp -version "$version" \
            -output "dist/$name.cdx.json" "$stage/$name/$binary" 2>/dev/null
    done
done
rm -rf "$stage"
(cd dist && sha256sum -- * >SHA256SUMS)
printf 'Version %s is in dist/:\n' "$version"
(cd dist && ls -l)
