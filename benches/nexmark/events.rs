//! The auction house of Nexmark: its people, auctions and bids, as the public generator makes them.

use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event as Generated;

/// Somebody who sells or bids.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "no query asks for all of a person")]
pub struct Person {
    pub id: u64,
    pub name: String,
    pub email_address: String,
    pub credit_card: String,
    pub city: String,
    pub state: String,
    pub time_ms: u64,
    pub extra: String,
}

/// A thing for sale.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "no query asks for all of an auction")]
pub struct Auction {
    pub id: u64,
    pub item_name: String,
    pub description: String,
    pub initial_bid: u64,
    pub reserve: u64,
    pub time_ms: u64,
    pub expires_ms: u64,
    pub seller: u64,
    pub category: u64,
    pub extra: String,
}

/// An offer for it.
#[millpond::data]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bid {
    pub auction: u64,
    pub bidder: u64,
    pub price: u64,
    pub channel: String,
    pub url: String,
    pub time_ms: u64,
    pub extra: String,
}

#[derive(Clone, Debug)]
pub enum Event {
    Person(Person),
    Auction(Auction),
    Bid(Bid),
}

impl From<Generated> for Event {
    fn from(event: Generated) -> Self {
        match event {
            Generated::Person(person) => Event::Person(Person {
                id: person.id as u64,
                name: person.name,
                email_address: person.email_address,
                credit_card: person.credit_card,
                city: person.city,
                state: person.state,
                time_ms: person.date_time,
                extra: person.extra,
            }),
            Generated::Auction(auction) => Event::Auction(Auction {
                id: auction.id as u64,
                item_name: auction.item_name,
                description: auction.description,
                initial_bid: auction.initial_bid as u64,
                reserve: auction.reserve as u64,
                time_ms: auction.date_time,
                expires_ms: auction.expires,
                seller: auction.seller as u64,
                category: auction.category as u64,
                extra: auction.extra,
            }),
            Generated::Bid(bid) => Event::Bid(Bid {
                auction: bid.auction as u64,
                bidder: bid.bidder as u64,
                price: bid.price as u64,
                channel: bid.channel,
                url: bid.url,
                time_ms: bid.date_time,
                extra: bid.extra,
            }),
        }
    }
}

/// The first events of an auction house with so many in a second: the same every time, and each 100 of them out of order.
/// Of 50 events, one is a person, three are auctions, and 46 are bids.
pub fn generate(events: usize, per_second: usize) -> Vec<Event> {
    let config = NexmarkConfig {
        base_time: 1_700_000_000_000,
        first_rate: per_second,
        next_rate: per_second,
        out_of_order_group_size: 100,
        ..NexmarkConfig::default()
    };
    EventGenerator::new(config).take(events).map(Event::from).collect()
}
