// Package registry is the Local Registry's memory: one record for each device
// session, and the outbox of the events that carry its changes to the cloud.
//
// Both are in one bbolt file, and every change writes the record, its events
// and how far the input was read in one transaction. So after kill -9 at any
// point, a session's events that were ever handed out are gap-free from seq 1,
// an event that is handed out twice is the same bytes, and folding them gives
// the record.
//
// Everything is bounded: devices by Options.MaxDevices, a device by the limits
// of package device, the outbox by Options.MaxOutboxBytes. A full outbox drops
// nothing: changes stay in the record without a seq and become one later delta.
//
// presence.go decides whether a device is online, model.go its model, due.go what
// happens by the passing of time, commands.go how a command is done once.
//
// All records are kept in memory, so that the common observation, which changes
// nothing, costs no transaction.
package registry
