package load

import (
	"math/bits"
	"time"
)

// Histogram counts times in buckets that are about 3 % wide, so that a million
// of them take 5 KB. It holds up to 18 minutes; what is longer counts as that.
type Histogram struct {
	counts [bucketCount]uint32
	total  uint64
}

const (
	// A power of two is cut into so many buckets.
	perOctave = 32
	octaves   = 35 // above the first 64 ns, which are exact

	bucketCount = (octaves + 2) * perOctave
)

// bucketOf returns the bucket of a time in nanoseconds.
func bucketOf(ns uint64) int {
	shift := max(0, bits.Len64(ns)-6)
	return min(shift*perOctave+int(ns>>shift), bucketCount-1)
}

// lowest is the shortest time that falls into a bucket, in nanoseconds.
func lowest(bucket int) uint64 {
	shift := max(0, bucket/perOctave-1)
	return uint64(bucket-shift*perOctave) << shift
}

// Add counts a time.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucketOf(uint64(max(d, 0)))]++
	h.total++
}

// Merge adds the counts of another histogram.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// Count is how many times were added.
func (h *Histogram) Count() int { return int(h.total) }

// Quantile returns the time that a share of all, from 0 to 1, do not exceed, to
// within a bucket's width. Of none it is 0.
func (h *Histogram) Quantile(share float64) time.Duration {
	wanted := uint64(share*float64(h.total) + 0.5)
	seen := uint64(0)
	for i, n := range h.counts {
		if seen += uint64(n); n > 0 && seen >= wanted {
			return time.Duration((lowest(i) + lowest(i+1)) / 2)
		}
	}
	return 0
}
