package discovery

import (
	"slices"

	"golang.org/x/net/bpf"
)

// CaptureLength is what the filter returns for a frame that it passes whole.
const CaptureLength = captureLength

// RegisteredSources are the sources that this package reads.
func RegisteredSources() []Source { return sources.list }

// MaySet reports whether a source may set an attribute.
func MaySet(kind, name string) bool {
	if slices.Contains(addressAttributes, name) {
		return true
	}
	i := slices.IndexFunc(sources.list, func(s Source) bool { return s.Name == kind })
	return i >= 0 && slices.Contains(sources.list[i].Attributes, name)
}

// NewFilter returns the filter of the kernel without samples of other traffic: what it returns is how
// many bytes of a frame are captured.
func NewFilter() (func(frame []byte) (int, error), error) { return newFilter(sources) }

func newFilter(t *sourceTable) (func(frame []byte) (int, error), error) {
	raw, err := captureFilter(t, 0)
	if err != nil {
		return nil, err
	}
	program, _ := bpf.Disassemble(raw)
	vm, err := bpf.NewVM(program)
	if err != nil {
		return nil, err
	}
	return vm.Run, nil
}
