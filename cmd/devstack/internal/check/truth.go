package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Truth is how the devices compare with what the capture's author wrote down
// beside it.
type Truth struct {
	File    string `json:"file"`
	Devices int    `json:"devices"`
	Found   int    `json:"found"`
}

// TruthFile is the name of the file beside a capture that says what its devices
// are.
const TruthFile = "truth.json"

// truthFile is the part of it that the check needs.
type truthFile struct {
	Router struct {
		MAC string `json:"mac"`
	} `json:"router"`
	Devices []struct {
		MAC   string `json:"mac"`
		Final struct {
			IPv4     string `json:"ipv4"`
			HostName string `json:"host_name"`
			Status   string `json:"status"`
		} `json:"final"`
	} `json:"devices"`
}

// CompareTruth adds to r how the devices of one RAE compare with TruthFile in
// the capture's folder. Without such a file it does nothing.
func (r *Report) CompareTruth(capture, rae string) error {
	path := filepath.Join(filepath.Dir(capture), TruthFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the capture's truth: %w", err)
	}
	var t truthFile
	if err := json.Unmarshal(b, &t); err != nil {
		return fmt.Errorf("read the capture's truth: %s: %w", path, err)
	}
	if len(t.Devices) == 0 {
		return fmt.Errorf("read the capture's truth: %s names no device", path)
	}
	if r.Truth == nil {
		r.Truth = &Truth{File: filepath.Base(path)}
	}
	r.Truth.Devices += len(t.Devices)
	differ := func(format string, args ...any) { r.Differences = append(r.Differences, fmt.Sprintf(format, args...)) }
	for _, want := range t.Devices {
		i := slices.IndexFunc(r.Devices, func(d Device) bool { return d.RAE == rae && strings.EqualFold(d.MAC, want.MAC) })
		if i < 0 {
			differ("truth: device %s was not found", want.MAC)
			continue
		}
		before := len(r.Differences)
		got, final := r.Devices[i], want.Final
		if final.IPv4 != "" && !slices.Contains(got.Addresses, final.IPv4) {
			differ("truth: device %s ended with address %s, found %s", want.MAC, final.IPv4, strings.Join(got.Addresses, " "))
		}
		if final.HostName != "" && !slices.ContainsFunc(got.Names, func(n string) bool { return strings.EqualFold(strings.TrimSuffix(n, ".local"), final.HostName) }) {
			differ("truth: device %s ended with host name %s, found %s", want.MAC, final.HostName, strings.Join(got.Names, " "))
		}
		if final.Status != "" && got.Status != final.Status {
			differ("truth: device %s ended %s, found %s", want.MAC, final.Status, got.Status)
		}
		if len(r.Differences) == before {
			r.Truth.Found++
		}
	}
	for _, d := range r.Devices {
		if d.RAE == rae && strings.EqualFold(d.MAC, t.Router.MAC) {
			differ("truth: the router %s was recorded as a device", d.MAC)
		}
	}
	r.OK = len(r.Differences) == 0
	return nil
}
