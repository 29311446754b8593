package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// A filter that nothing can match is refused: its empty answer would look like an
// empty fleet.

// checkAttribute refuses the name of an attribute that the vocabulary lacks and
// that no session has ever had.
func checkAttribute(ctx context.Context, db *store.Store, flag, name string) error {
	if _, known := device.SpecOf(name); known {
		return nil
	}
	names, err := db.AttributeNames(ctx)
	if err != nil {
		return err
	}
	known := names
	for _, spec := range device.Vocabulary {
		known = append(known, spec.Name)
	}
	for _, have := range names {
		if have == name {
			return nil
		}
	}
	return cli.Usagef("%s: no device has an attribute %q%s; rollcall attributes lists what the platform knows", flag, cli.Clip(name, 80), cli.Nearest(name, known))
}

// checkFilterValue refuses a value that the attribute cannot have, or have among
// its values. It is written as text.
func checkFilterValue(name, value string) error {
	spec, known := device.SpecOf(name)
	if !known {
		return nil
	}
	if len(spec.Values) > 0 {
		return cli.CheckOneOf("--attr "+name, value, spec.Values)
	}
	quoted, err := json.Marshal(value)
	if err != nil {
		return err
	}
	list, err := json.Marshal([]string{value})
	if err != nil {
		return err
	}
	refused := device.CheckValue(name, quoted)
	for _, form := range [][]byte{[]byte(value), list} {
		if refused != nil && json.Valid(form) && device.CheckValue(name, form) == nil {
			refused = nil
		}
	}
	if refused != nil {
		return cli.Usagef("--attr: %q is no value of %s, which is of type %s", cli.Clip(value, 80), name, spec.Type)
	}
	return nil
}

// checkRAE refuses what cannot be a RAE's serial. None is all of them.
func checkRAE(serials ...string) error {
	var errs []error
	for _, serial := range serials {
		if serial == "" {
			continue
		}
		if err := device.CheckRAE(serial); err != nil {
			errs = append(errs, fmt.Errorf("--rae: %w", err))
		}
	}
	return errors.Join(errs...)
}

// hintRAE says that nothing has come from a RAE, which may be right: it may be
// new.
func hintRAE(ctx context.Context, env cli.Env, db *store.Store, serials ...string) error {
	for _, serial := range serials {
		if serial == "" {
			continue
		}
		known, err := db.RAEs(ctx)
		if err != nil {
			return err
		}
		if err := cli.CheckOneOf("", serial, known); err != nil {
			warn(env, "nothing has ever come from a RAE %q%s", serial, cli.Nearest(serial, known))
		}
	}
	return nil
}
