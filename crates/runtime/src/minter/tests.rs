//! Minting against a service that a test writes.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use control_plane_domain::outbound::{self, OutboundError};
use control_plane_testkit::{DEADLINE, wait_until};
use serde_json::Value;

use super::*;

/// Answers with tokens `t1`, `t2`, … that live for so long, or not at all.
struct Service {
    asked: AtomicUsize,
    life: f64,
    down: Mutex<bool>,
    bodies: Mutex<Vec<Value>>,
}

impl Service {
    fn new(life: f64) -> Arc<Self> {
        let asked = AtomicUsize::new(0);
        Arc::new(Self { asked, life, down: Mutex::default(), bodies: Mutex::default() })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn set_down(service: &Service, down: bool) {
    *service.down.lock().unwrap() = down;
}

#[async_trait]
impl Outbound for Service {
    async fn post(&self, call: Call) -> Result<outbound::Answer, OutboundError> {
        assert_eq!(call.url, "http://auth.example/v1/tokens");
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        // Long enough for the others to come while it is under way.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let body = serde_json::from_slice(&call.body).unwrap_or_default();
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).push(body);
        if *self.down.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(outbound::Answer { status: 500, body: b"secret".to_vec() });
        }
        let body = json!({ "token": format!("t{number}"), "expires_in_seconds": self.life });
        Ok(outbound::Answer { status: 201, body: body.to_string().into_bytes() })
    }
}

fn minter(service: &Arc<Service>) -> Minter {
    let config = MinterConfig {
        url: "http://auth.example/v1/".to_owned(),
        timeout: Duration::from_secs(5),
        ttl: Duration::from_secs(3600),
        sender: "control-plane".to_owned(),
        can_manage_registry: false,
        fall_back: false,
    };
    Minter::new(config, Arc::clone(service) as Arc<dyn Outbound>)
}

fn is(token: &Minted, text: &str) -> bool {
    token.as_ref().is_ok_and(|token| token.header() == text)
}

#[test]
fn a_token_is_renewed_forty_seconds_before_its_end_or_in_the_middle_of_a_short_life() {
    for (life, renew, stop) in [(3600, 3560, 3590), (100, 60, 90), (60, 30, 50), (20, 10, 15)] {
        let (renew_after, use_for) = plan(Duration::from_secs(life));
        assert_eq!((renew_after.as_secs(), use_for.as_secs()), (renew, stop), "{life}");
    }
}

#[tokio::test]
async fn however_many_wait_one_mint_serves_them_all() {
    let service = Service::new(600.0);
    let minter = minter(&service);

    let tokens = futures_util::future::join_all((0..50).map(|_| minter.token())).await;

    assert!(tokens.iter().all(|token| is(token, "Bearer t1")));
    assert!(is(&minter.token().await, "Bearer t1"));
    assert_eq!(service.asked(), 1);
    let wanted = json!({
        "sender": "control-plane",
        "ttl_seconds": 3600,
        "scopes": { "can_start_sessions": false, "is_observer": true },
    });
    assert_eq!(*service.bodies.lock().unwrap(), [wanted]);
}

#[tokio::test]
async fn a_mint_goes_on_when_the_one_who_waits_leaves() {
    let service = Service::new(600.0);
    let minter = minter(&service);

    let left = tokio::time::timeout(Duration::from_millis(1), minter.token()).await;

    assert!(left.is_err());
    assert!(is(&minter.token().await, "Bearer t1"));
    assert_eq!(service.asked(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_by_itself_and_nobody_waits() {
    let service = Service::new(8.0);
    let minter = minter(&service);
    minter.token().await.unwrap();

    let is_renewed = async || {
        let token = minter.token().now_or_never().expect("there always is one that is good");
        is(&token, "Bearer t2")
    };

    wait_until(DEADLINE, is_renewed).await;
    assert_eq!(service.asked(), 2);
}

#[tokio::test]
async fn an_expired_token_is_not_used_and_the_failure_says_whose_it_is() {
    let service = Service::new(0.4);
    let minter = minter(&service);
    minter.token().await.unwrap();
    set_down(&service, true);

    wait_until(DEADLINE, async || minter.token().await.is_err()).await;
    let text = minter.token().await.err().unwrap().to_string();
    set_down(&service, false);

    assert!(text.contains("auth service at http://auth.example/v1/"), "{text}");
    assert!(text.contains("500") && !text.contains("secret"), "{text}");
    wait_until(DEADLINE, async || minter.token().await.is_ok()).await;
}

#[tokio::test]
async fn a_refused_token_is_dropped_once() {
    let service = Service::new(600.0);
    let minter = minter(&service);
    let first = minter.token().await.unwrap();

    assert!(minter.refused(&first));
    let second = minter.token().await.unwrap();
    // Whoever still has the first one gets the second.
    assert!(minter.refused(&first));
    // The second is refused as well: another would not help now.
    assert!(!minter.refused(&second));

    assert!(is(&minter.token().await, "Bearer t2"));
    assert_eq!(service.asked(), 2);
}

#[tokio::test]
async fn renewing_keeps_no_minter_alive() {
    let service = Service::new(0.4);
    let minter = minter(&service);
    minter.token().await.unwrap();

    drop(minter);

    wait_until(DEADLINE, async || Arc::strong_count(&service) == 1).await;
}
