package dane

// outcome is what the verdicts on all hosts amount to.
type outcome struct {
	state    State
	someTLSA bool
	someNone bool
	err      error // first failure that made state Unknown, or that was set aside
}

// classify turns the verdicts on the hosts into a state (BEHAVIOUR §4).
// Definite states come first: they stand whatever the failing hosts would have
// said.
func classify(mxSecure bool, hosts []Host, omitted int) outcome {
	n := count(hosts)
	o := outcome{
		someTLSA: n.usable+n.unusable > 0,
		someNone: n.none > 0,
		err:      n.firstErr,
	}
	switch {
	case o.someTLSA && !mxSecure:
		o.state = InsecureMX // 7672 §2.2.1: one such host is enough
	case o.someTLSA && (n.unusable > 0 || n.none > 0 || omitted > 0):
		o.state = Partial // Full is out of reach
	case o.someTLSA && n.addressFailed+n.tlsaFailed > 0:
		o.state = Unknown // Full or Partial
	case o.someTLSA:
		o.state = Full
	case n.tlsaFailed > 0:
		o.state, o.err = Unknown, n.tlsaErr // 7672 §2.1.2
	case n.addressFailed > 0 && n.none == 0:
		o.state = Unknown // no host is left to deliver to
	default:
		// A host whose addresses cannot be found is set aside: no client can
		// deliver to it, and who can silence its addresses can lead mail to the
		// other hosts anyway.
		o.state = None
	}
	return o
}

type counts struct {
	usable, unusable, none    int
	addressFailed, tlsaFailed int
	firstErr, tlsaErr         error
}

func count(hosts []Host) counts {
	var n counts
	for _, h := range hosts {
		switch h.Verdict {
		case Usable:
			n.usable++
		case Unusable:
			n.unusable++
		case NoTLSA, Insecure:
			n.none++
		case NoAddress: // takes no part
		case Failed:
			if n.firstErr == nil {
				n.firstErr = h.Err
			}
			if len(h.Addresses) == 0 {
				n.addressFailed++
				continue
			}
			n.tlsaFailed++
			if n.tlsaErr == nil {
				n.tlsaErr = h.Err
			}
		}
	}
	return n
}
