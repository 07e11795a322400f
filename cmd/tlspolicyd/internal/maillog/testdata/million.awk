# A mail log of a million lines: 125,000 messages in 15 days, one in ten held back.
BEGIN {
  for (i = 0; i < 125000; i++) {
    id = sprintf("4c%06dXz3y", i); d = "d" i % 5000 ".test"; h = "mx." d "[192.0.2.1]:25"
    s = int(i * 10.368)
    t = sprintf("2026-11-%02dT%02d:%02d:%02d.123456+00:00 mail postfix/", 1 + s / 86400, s / 3600 % 24, s / 60 % 60, s % 60)
    print t "smtpd[101]: connect from client.test[198.51.100.7]"
    print t "smtpd[101]: " id ": client=client.test[198.51.100.7]"
    print t "cleanup[102]: " id ": message-id=<" i "@client.test>"
    print t "qmgr[103]: " id ": from=<sender@client.test>, size=4321, nrcpt=1 (queue active)"
    if (i % 10) {
      print t "smtp[" 104 + i % 50 "]: Verified TLS connection established to " h ": TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"
      print t "smtp[" 104 + i % 50 "]: " id ": to=<user@" d ">, relay=" h ", delay=0.2, delays=0/0/0.1/0.1, dsn=2.0.0, status=sent (250 2.0.0 Ok)"
      print t "qmgr[103]: " id ": removed"
    } else {
      print t "smtp[" 104 + i % 50 "]: server certificate verification failed for " h ": certificate has expired"
      print t "smtp[" 104 + i % 50 "]: Untrusted TLS connection established to " h ": TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"
      print t "smtp[" 104 + i % 50 "]: " id ": to=<user@" d ">, relay=" h ", delay=0.2, delays=0/0/0.2/0, dsn=4.7.5, status=deferred (Server certificate not verified)"
    }
    print t "smtpd[101]: disconnect from client.test[198.51.100.7] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5"
  }
}
