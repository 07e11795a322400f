package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"
)

// The encoding of a record: one version byte, a CRC-32C (big endian) over the
// domain and the fields, then the fields. A field is a tag, a length and that
// many bytes; a value inside is a varint, raw bytes, or fields again.
//
// It is not JSON for two reasons: policy files are stored unchanged without base64,
// and a negative answer takes some 50 bytes instead of 200, of which there may be a
// million. The checksum covers the domain too, so that a value under the wrong key is
// an error and not a policy.
//
// Every record can be encoded and decoded: numbers out of range (a negative TTL)
// become the nearest in range. A tag never gets a second meaning. Unknown tags are
// skipped, so that a record can get more facts without a new version. Times are kept
// to the millisecond, and an absent field is the zero value.
const encodingVersion = 1

const (
	// MaxDomain is the longest key, in bytes (RFC 1035 §2.3.4).
	MaxDomain = 255
	// MaxEncoded is the largest encoded record in bytes: many times a policy file
	// of 64 KiB and all else.
	MaxEncoded = 1 << 20

	headerSize = 1 + 4
)

const (
	tagSTS uint64 = iota + 1
	tagDANE
	tagLastUsed
	tagDue
	tagClass
)

const (
	tagPolicy uint64 = iota + 1
	tagPolicyID
	tagFetchedAt
	tagTXTID
	tagCheckedAt
	tagTXTTTL
	tagTXTError
	tagFailedID
	tagFailedAt
	tagFailures
	tagError
	tagEndReported
	tagMoved
	tagTXTFailed
	tagTXTGone
	tagUnchanged
	tagSharedSince
	tagSharedBy
)

const (
	tagLiteral uint64 = iota + 1
	tagPort
	tagState
	_ // text for the operator, in records of older versions
	tagKnownAt
	tagExpiresAt
	tagSomeTLSA
	tagNullMX
	tagUnvalidated
	tagMX
	tagNoDomain
	tagOmitted
	tagHost
)

const (
	tagHostName uint64 = iota + 1
	tagPreference
	tagVerdict
	tagHostKnownAt
	tagFailure
	tagHostError
)

// EncodeRecord returns the stored form of a record without its Domain, which is the
// key. It fails for a Domain of no bytes or more
// than MaxDomain and for a record of more than MaxEncoded.
func EncodeRecord(r Record) ([]byte, error) {
	if r.Domain == "" || len(r.Domain) > MaxDomain {
		return nil, fmt.Errorf("domain of %d bytes: want 1 to %d", len(r.Domain), MaxDomain)
	}
	b := make([]byte, headerSize, 128)
	if r.STS != nil {
		b = appendBytes(b, tagSTS, encodeSTS(r.STS))
	}
	for i := range r.DANE {
		b = appendBytes(b, tagDANE, encodeDANE(&r.DANE[i]))
	}
	b = appendTime(b, tagLastUsed, r.LastUsed)
	b = appendTime(b, tagDue, r.Due)
	b = appendInt(b, tagClass, int64(r.Class))
	if len(b) > MaxEncoded {
		return nil, fmt.Errorf("record of %q: %d bytes, want at most %d", r.Domain, len(b), MaxEncoded)
	}
	seal(r.Domain, b)
	return b, nil
}

// DecodeRecord is the reverse of EncodeRecord. The result shares no memory
// with b. Bytes that EncodeRecord did not write for this domain are an error that
// wraps ErrDamaged.
func DecodeRecord(domain string, b []byte) (Record, error) {
	r := Record{Domain: domain}
	err := r.decode(b)
	if err != nil {
		return Record{}, fmt.Errorf("record of %.255q: %w: %w", domain, ErrDamaged, err)
	}
	return r, nil
}

// Intact reports, without decoding b, whether EncodeRecord wrote it for this domain
// and it has not changed since.
func Intact(domain string, b []byte) bool { return checkSeal(domain, b) == nil }

func checkSeal(domain string, b []byte) error {
	switch {
	case len(b) < headerSize || len(b) > MaxEncoded:
		return fmt.Errorf("%d bytes", len(b))
	case b[0] != encodingVersion:
		return fmt.Errorf("encoding version %d", b[0])
	case binary.BigEndian.Uint32(b[1:]) != checksum(domain, b[headerSize:]):
		return errors.New("checksum does not match")
	}
	return nil
}

func (r *Record) decode(b []byte) error {
	if err := checkSeal(r.Domain, b); err != nil {
		return err
	}
	return eachField(b[headerSize:], func(tag uint64, v []byte) (err error) {
		switch tag {
		case tagSTS:
			r.STS, err = decodeSTS(v)
		case tagDANE:
			var d DANE
			d, err = decodeDANE(v)
			r.DANE = append(r.DANE, d)
		case tagLastUsed:
			r.LastUsed, err = decodeTime(v)
		case tagDue:
			r.Due, err = decodeTime(v)
		case tagClass:
			r.Class, err = decodeInt[Class](v, math.MaxUint8)
		}
		return err
	})
}

func encodeSTS(s *STS) []byte {
	b := make([]byte, 0, 64+len(s.Policy))
	if s.Policy != nil { // an empty file counts
		b = appendBytes(b, tagPolicy, s.Policy)
	}
	b = appendString(b, tagPolicyID, s.PolicyID)
	b = appendTime(b, tagFetchedAt, s.FetchedAt)
	b = appendString(b, tagTXTID, s.TXTID)
	b = appendTime(b, tagCheckedAt, s.CheckedAt)
	b = appendInt(b, tagTXTTTL, max(s.TXTTTL, 0).Milliseconds())
	b = appendString(b, tagTXTError, s.TXTError)
	b = appendString(b, tagFailedID, s.FailedID)
	b = appendTime(b, tagFailedAt, s.FailedAt)
	b = appendInt(b, tagFailures, count(s.Failures))
	b = appendString(b, tagError, s.Error)
	b = appendBool(b, tagEndReported, s.EndReported)
	b = appendInt(b, tagMoved, max(s.Moved, 0).Milliseconds())
	b = appendBool(b, tagTXTFailed, s.TXTFailed)
	b = appendBool(b, tagTXTGone, s.TXTGone)
	b = appendInt(b, tagUnchanged, count(s.Unchanged))
	b = appendTime(b, tagSharedSince, s.SharedSince)
	return appendString(b, tagSharedBy, s.SharedBy)
}

// count keeps a number within what decodeInt takes.
func count(n int) int64 { return int64(min(max(n, 0), math.MaxInt32)) }

func decodeSTS(b []byte) (*STS, error) {
	s := new(STS)
	err := eachField(b, func(tag uint64, v []byte) (err error) {
		switch tag {
		case tagPolicy:
			s.Policy = bytes.Clone(v)
		case tagPolicyID:
			s.PolicyID = string(v)
		case tagFetchedAt:
			s.FetchedAt, err = decodeTime(v)
		case tagTXTID:
			s.TXTID = string(v)
		case tagCheckedAt:
			s.CheckedAt, err = decodeTime(v)
		case tagTXTTTL:
			s.TXTTTL, err = decodeDuration(v)
		case tagTXTError:
			s.TXTError = string(v)
		case tagFailedID:
			s.FailedID = string(v)
		case tagFailedAt:
			s.FailedAt, err = decodeTime(v)
		case tagFailures:
			s.Failures, err = decodeInt[int](v, math.MaxInt32)
		case tagError:
			s.Error = string(v)
		case tagEndReported:
			s.EndReported, err = decodeBool(v)
		case tagMoved:
			s.Moved, err = decodeDuration(v)
		case tagTXTFailed:
			s.TXTFailed, err = decodeBool(v)
		case tagTXTGone:
			s.TXTGone, err = decodeBool(v)
		case tagUnchanged:
			s.Unchanged, err = decodeInt[int](v, math.MaxInt32)
		case tagSharedSince:
			s.SharedSince, err = decodeTime(v)
		case tagSharedBy:
			s.SharedBy = string(v)
		}
		return err
	})
	return s, err
}

func encodeDANE(d *DANE) []byte {
	b := make([]byte, 0, 48+64*len(d.Hosts))
	b = appendBool(b, tagLiteral, d.Literal)
	b = appendInt(b, tagPort, int64(d.Port))
	b = appendInt(b, tagState, int64(d.State))
	b = appendTime(b, tagKnownAt, d.KnownAt)
	b = appendTime(b, tagExpiresAt, d.ExpiresAt)
	b = appendBool(b, tagSomeTLSA, d.SomeTLSA)
	b = appendBool(b, tagNullMX, d.NullMX)
	b = appendBool(b, tagUnvalidated, d.Unvalidated)
	b = appendInt(b, tagMX, int64(d.MX))
	b = appendBool(b, tagNoDomain, d.NoDomain)
	b = appendInt(b, tagOmitted, count(d.Omitted))
	for i := range d.Hosts {
		b = appendBytes(b, tagHost, encodeHost(&d.Hosts[i]))
	}
	return b
}

func encodeHost(h *Host) []byte {
	b := make([]byte, 0, 64)
	b = appendString(b, tagHostName, h.Name)
	b = appendInt(b, tagPreference, int64(h.Preference))
	b = appendInt(b, tagVerdict, int64(h.Verdict))
	b = appendTime(b, tagHostKnownAt, h.KnownAt)
	b = appendInt(b, tagFailure, int64(h.Failure))
	return appendString(b, tagHostError, h.Error)
}

func decodeDANE(b []byte) (DANE, error) {
	var d DANE
	err := eachField(b, func(tag uint64, v []byte) (err error) {
		switch tag {
		case tagLiteral:
			d.Literal, err = decodeBool(v)
		case tagPort:
			d.Port, err = decodeInt[uint16](v, math.MaxUint16)
		case tagState:
			d.State, err = decodeInt[uint8](v, math.MaxUint8)
		case tagKnownAt:
			d.KnownAt, err = decodeTime(v)
		case tagExpiresAt:
			d.ExpiresAt, err = decodeTime(v)
		case tagSomeTLSA:
			d.SomeTLSA, err = decodeBool(v)
		case tagNullMX:
			d.NullMX, err = decodeBool(v)
		case tagUnvalidated:
			d.Unvalidated, err = decodeBool(v)
		case tagMX:
			d.MX, err = decodeInt[uint8](v, math.MaxUint8)
		case tagNoDomain:
			d.NoDomain, err = decodeBool(v)
		case tagOmitted:
			d.Omitted, err = decodeInt[int](v, math.MaxInt32)
		case tagHost:
			var h Host
			h, err = decodeHost(v)
			d.Hosts = append(d.Hosts, h)
		}
		return err
	})
	return d, err
}

func decodeHost(b []byte) (Host, error) {
	var h Host
	err := eachField(b, func(tag uint64, v []byte) (err error) {
		switch tag {
		case tagHostName:
			h.Name = string(v)
		case tagPreference:
			h.Preference, err = decodeInt[uint16](v, math.MaxUint16)
		case tagVerdict:
			h.Verdict, err = decodeInt[uint8](v, math.MaxUint8)
		case tagHostKnownAt:
			h.KnownAt, err = decodeTime(v)
		case tagFailure:
			h.Failure, err = decodeInt[uint8](v, math.MaxUint8)
		case tagHostError:
			h.Error = string(v)
		}
		return err
	})
	return h, err
}

// eachField calls visit for each field of b, in order.
func eachField(b []byte, visit func(tag uint64, v []byte) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return errors.New("cut off in a tag")
		}
		b = b[n:]
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return fmt.Errorf("field %d runs past the end", tag)
		}
		if err := visit(tag, b[n:n+int(size)]); err != nil {
			return fmt.Errorf("field %d: %w", tag, err)
		}
		b = b[n+int(size):]
	}
	return nil
}

func appendBytes(b []byte, tag uint64, v []byte) []byte {
	b = binary.AppendUvarint(b, tag)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func appendString(b []byte, tag uint64, v string) []byte {
	if v == "" {
		return b
	}
	b = binary.AppendUvarint(b, tag)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func appendInt(b []byte, tag uint64, v int64) []byte {
	if v == 0 {
		return b
	}
	return appendVarint(b, tag, v)
}

func appendBool(b []byte, tag uint64, v bool) []byte {
	if !v {
		return b
	}
	return appendVarint(b, tag, 1)
}

// appendTime omits the zero time only; 1970 is a time like any other.
func appendTime(b []byte, tag uint64, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return appendVarint(b, tag, t.UnixMilli())
}

func appendVarint(b []byte, tag uint64, v int64) []byte {
	var buf [binary.MaxVarintLen64]byte
	return appendBytes(b, tag, binary.AppendVarint(buf[:0], v))
}

func decodeTime(v []byte) (time.Time, error) {
	ms, n := binary.Varint(v)
	if n <= 0 || n != len(v) {
		return time.Time{}, errors.New("not a time")
	}
	return time.UnixMilli(ms).UTC(), nil
}

// decodeInt reads a number from 0 to most.
func decodeInt[T ~int | ~int64 | ~uint8 | ~uint16](v []byte, most int64) (T, error) {
	i, n := binary.Varint(v)
	if n <= 0 || n != len(v) || i < 0 || i > most {
		return 0, fmt.Errorf("not a number from 0 to %d", most)
	}
	return T(i), nil
}

func decodeBool(v []byte) (bool, error) {
	n, err := decodeInt[int](v, 1)
	return n == 1, err
}

func decodeDuration(v []byte) (time.Duration, error) {
	ms, err := decodeInt[int64](v, int64(math.MaxInt64/time.Millisecond))
	return time.Duration(ms) * time.Millisecond, err
}

// seal fills in the header of an encoded record.
func seal(domain string, b []byte) {
	b[0] = encodingVersion
	binary.BigEndian.PutUint32(b[1:], checksum(domain, b[headerSize:]))
}

func checksum(domain string, fields []byte) uint32 {
	// MakeTable returns the same table each time; with hardware CRC no table is read.
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum([]byte(domain), castagnoli), castagnoli, fields)
}
