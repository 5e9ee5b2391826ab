use crate::*;
use bytes::Bytes;
use std::time::Instant;
#[test]
fn timing() {
    let body = r#"{"type":"statistics","body":{"cpu_load":3.25,"memory_usage":0.61,"disk_usage":42,"load":[0.5,0.25,0.125],"net_in":123456789,"net_out":987654321,"host":"validator-a.example.org","os":"linux","os_v":"4.15.0","client":"0.1.0","uptime":100.0,"active":true,"mining":false,"peers":5,"gas":1000000000,"coinbase":"0x11111"}}"#;
    println!("json body {}", body.len());
    for escaped in [false, true] {
        let text = if escaped { body.replace("linux", "li\\u00e9x") } else { body.to_owned() };
        let json = Body::new(Encoding::Json, Bytes::from(text), &Limits::default()).unwrap();
        let packed =
            Body::new(Encoding::Msgpack, Bytes::from(json.to_msgpack().into_owned()), &Limits::default())
                .unwrap();
        println!("msgpack body {}", packed.bytes().len());
        for (encoding, body) in [(Encoding::Json, json), (Encoding::Msgpack, packed)] {
            let requests: Vec<Request> = (0..64)
                .map(|i| {
                    Request::from(Call::Data(Message {
                        agent: AgentId::new(format!("node-{i}")).unwrap(),
                        data_type: "system_metrics".into(),
                        message_id: None,
                        sent_at: None,
                        traceparent: None,
                        body: body.clone(),
                    }))
                })
                .collect();
            let frame = Bytes::from(encode_batch(&requests, Some(&7_u64.into()), encoding));
            let mut best = u128::MAX;
            let mut best_json = u128::MAX;
            let mut best_rec = u128::MAX;
            let mut best_dec = u128::MAX;
            for _ in 0..20000 {
                let t = Instant::now();
                let f = decode_frame(encoding, &frame, &Limits::default()).unwrap();
                best = best.min(t.elapsed().as_nanos());
                let Frame::Batch { requests, .. } = f else { panic!() };
                let messages: Vec<Message> = requests
                    .into_iter()
                    .map(|r| match r.unwrap().call {
                        Call::Data(m) => m,
                        _ => panic!(),
                    })
                    .collect();
                let t = Instant::now();
                let n: usize = messages.iter().map(|m| m.body.to_json().len()).sum();
                best_json = best_json.min(t.elapsed().as_nanos());
                std::hint::black_box(n);
                let stored: Vec<Record> =
                    messages.into_iter().map(|m| Record::Message(m.into_stored(1, None))).collect();
                let t = Instant::now();
                let recs: Vec<Bytes> = stored.iter().map(|m| Bytes::from(m.encode())).collect();
                best_rec = best_rec.min(t.elapsed().as_nanos());
                let t = Instant::now();
                let back: Vec<Record> = recs.into_iter().map(|b| Record::decode(b).unwrap()).collect();
                best_dec = best_dec.min(t.elapsed().as_nanos());
                std::hint::black_box(back);
            }
            println!(
                "{encoding:?} escaped={escaped}: decode {} ns, to_json {} ns, record encode {} decode {}",
                best / 64,
                best_json / 64,
                best_rec / 64,
                best_dec / 64
            );
        }
    }
}
#[test]
fn only() {
    let body = r#"{"type":"statistics","body":{"cpu_load":3.25,"memory_usage":0.61,"disk_usage":42,"load":[0.5,0.25,0.125],"net_in":123456789,"net_out":987654321,"host":"validator-a.example.org","os":"linux","os_v":"4.15.0","client":"0.1.0","uptime":100.0,"active":true,"mining":false,"peers":5,"gas":1000000000,"coinbase":"0x11111"}}"#;
    let encoding = if std::env::var("ENC").unwrap() == "json" { Encoding::Json } else { Encoding::Msgpack };
    let json = Body::new(Encoding::Json, Bytes::from(body), &Limits::default()).unwrap();
    let requests: Vec<Request> = (0..64).map(|i| Request::from(Call::Data(Message { agent: AgentId::new(format!("node-{i}")).unwrap(), data_type: "system_metrics".into(), message_id: None, sent_at: None, traceparent: None, body: json.clone() }))).collect();
    let frame = Bytes::from(encode_batch(&requests, Some(&7_u64.into()), encoding));
    for _ in 0..50000 { std::hint::black_box(decode_frame(encoding, &frame, &Limits::default()).unwrap()); }
}
