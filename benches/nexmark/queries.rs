//! The queries 0 to 8 of Nexmark (Tucker, Tufte, Papadimos, Maier, "NEXMark - A Benchmark for Queries over Data Streams",
//! 2002, as Apache Beam and the Nexmark suite for Flink define them) as jobs.
//!
//! Events come at most a second out of order. Each query takes of an event what it needs before anything else: what is
//! cached, shuffled and kept is that.

use std::time::Duration;

use millpond::{DStream, EventStream, EventWindows, Record, Timer, Watermarks};

use crate::events::{Bid, Event};

const SECOND: Duration = Duration::from_secs(1);

/// How far out of order events come.
pub const OUT_OF_ORDER: Duration = SECOND;
/// Of the windows of queries 5, 7 and 8.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Of the windows of query 5.
pub const SLIDE: Duration = Duration::from_secs(2);

// -- what the queries put out --

/// What an auction came to.
#[millpond::data]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sale {
    pub expires_ms: u64,
    pub auction: u64,
    pub seller: u64,
    pub category: u64,
    pub price: u64,
}

/// A row of any query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// Queries 0 and 1.
    Bid(Bid),
    /// Query 2.
    Price { auction: u64, price: u64 },
    /// Query 3.
    LocalItem { auction: u64, name: String, city: String, state: String },
    /// Query 4: the mean of the prices so far.
    Category { category: u64, mean_price: u64 },
    /// Query 5.
    HotItem { window_end_ms: u64, auction: u64, bids: u64 },
    /// Query 6: the mean of the seller's last ten prices.
    Seller { seller: u64, expires_ms: u64, auction: u64, mean_price: u64 },
    /// Query 7.
    Highest { window_end_ms: u64, bid: Bid },
    /// Query 8.
    NewSeller { window_end_ms: u64, person: u64, name: String },
}

pub const QUERIES: [&str; 9] = ["q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8"];

/// The query of this name.
pub fn query(name: &str, events: &DStream<Event>) -> DStream<Row> {
    match name {
        "q0" => bids(events).map(Row::Bid),
        "q1" => in_euros(&bids(events)).map(Row::Bid),
        "q2" => selection(&bids(events)),
        "q3" => local_items(events),
        "q4" => mean_price_of_category(&winning_bids(events)),
        "q5" => hot_items(&bids(events)),
        "q6" => mean_price_of_seller(&winning_bids(events)),
        "q7" => highest_bid(&bids(events)),
        "q8" => new_sellers(events),
        _ => panic!("{name} is none of {QUERIES:?}"),
    }
}

// -- the queries --

/// Query 0: the bids as they are.
fn bids(events: &DStream<Event>) -> DStream<Bid> {
    events.flat_map(|event, out| {
        if let Event::Bid(bid) = event {
            out.emit(bid);
        }
    })
}

/// Query 1: their prices in another currency.
fn in_euros(bids: &DStream<Bid>) -> DStream<Bid> {
    bids.map(|bid| Bid { price: bid.price * 908 / 1_000, ..bid })
}

/// Query 2: the prices that were offered for some auctions.
fn selection(bids: &DStream<Bid>) -> DStream<Row> {
    bids.filter(|bid| bid.auction % 123 == 0).map(|Bid { auction, price, .. }| Row::Price { auction, price })
}

/// What query 3 is told about a person.
#[millpond::data]
#[derive(Clone)]
enum Known {
    /// Name, city and state.
    As(String, String, String),
    /// The auctions of somebody who is not known yet.
    By(Vec<u64>),
}

/// Query 3: who sells things of a category in some states; people and auctions come in any order, at any distance.
fn local_items(events: &DStream<Event>) -> DStream<Row> {
    let people = events.flat_map(|event, out| match event {
        Event::Person(person) if ["or", "id", "ca"].contains(&person.state.as_str()) => {
            out.emit((person.id, (person.name, person.city, person.state)));
        }
        _ => {}
    });
    let auctions = events.flat_map(|event, out| match event {
        Event::Auction(auction) if auction.category == 10 => out.emit((auction.seller, auction.id)),
        _ => {}
    });
    people.cogroup(&auctions).transform_with_state("people", |seller, both| {
        let mut new: Vec<u64> = both.iter().flat_map(|(_, auctions)| auctions.iter().copied()).collect();
        let person = both.iter().flat_map(|(people, _)| people).next_back().cloned();
        let person = match (person, seller.take()) {
            (Some(person), Some(Known::By(waiting))) => {
                new.extend(waiting);
                Some(person)
            }
            (None, Some(Known::As(name, city, state))) => Some((name, city, state)),
            (None, Some(Known::By(waiting))) => {
                new.extend(waiting);
                None
            }
            (person, _) => person,
        };
        let Some((name, city, state)) = person else { return seller.update(Known::By(new)) };
        for auction in new {
            let (name, city, state) = (name.clone(), city.clone(), state.clone());
            seller.emit(Row::LocalItem { auction, name, city, state });
        }
        seller.update(Known::As(name, city, state));
    })
}

/// What happens to an auction.
#[millpond::data]
#[derive(Clone)]
enum Move {
    /// From a time to another, by a seller, in a category.
    Opened(Lot),
    /// An offer of a price.
    Bid(u64),
}

#[millpond::data]
#[derive(Clone)]
struct Lot {
    opened_ms: u64,
    expires_ms: u64,
    seller: u64,
    category: u64,
}

/// What is known of an auction.
#[millpond::data]
#[derive(Clone, Default)]
struct Bidding {
    lot: Option<Lot>,
    best: Option<u64>,
    /// Times and prices of bids that came before their auction.
    early: Vec<(u64, u64)>,
}

/// The auctions that were sold, each once the time is over at which it could be bid for: queries 4 and 6 go by these.
fn winning_bids(events: &DStream<Event>) -> DStream<Sale> {
    let moves = events.flat_map(|event, out| match event {
        Event::Auction(auction) => {
            let (opened_ms, expires_ms) = (auction.time_ms, auction.expires_ms);
            let lot = Lot { opened_ms, expires_ms, seller: auction.seller, category: auction.category };
            out.emit((auction.time_ms, (auction.id, Move::Opened(lot))));
        }
        Event::Bid(bid) => out.emit((bid.time_ms, (bid.auction, Move::Bid(bid.price)))),
        Event::Person(_) => {}
    });
    in_time(&moves).transform_with_state("auctions", |auction, moves| {
        let mut bidding: Bidding = auction.take().unwrap_or_default();
        for (time_ms, one) in moves {
            match one {
                Move::Opened(lot) => bidding.lot = Some(lot.clone()),
                Move::Bid(price) => bidding.early.push((*time_ms, *price)),
            }
        }
        let watermark = auction.watermark();
        if let Some(lot) = &bidding.lot {
            let in_time = |time_ms| (lot.opened_ms..=lot.expires_ms).contains(&time_ms);
            let prices = bidding.early.drain(..).filter(|(time_ms, _)| in_time(*time_ms));
            bidding.best = prices.map(|(_, price)| price).chain(bidding.best).max();
            if lot.expires_ms >= watermark {
                auction.set_timer(Timer::EventTime(lot.expires_ms + 1));
                auction.update(bidding);
            } else if let Some(price) = bidding.best {
                let Lot { expires_ms, seller, category, .. } = *lot;
                let id = *auction.key();
                auction.emit(Sale { expires_ms, auction: id, seller, category, price });
            }
        } else {
            // No auction can come any more that is not later than these.
            bidding.early.retain(|(time_ms, _)| *time_ms >= watermark);
            if let Some(last_ms) = bidding.early.iter().map(|(time_ms, _)| *time_ms).max() {
                auction.set_timer(Timer::EventTime(last_ms + 1));
                auction.update(bidding);
            }
        }
    })
}

/// Query 4: for each category that something was sold in, what things of it cost in the mean so far.
fn mean_price_of_category(sales: &DStream<Sale>) -> DStream<Row> {
    sales
        .map(|sale| (sale.category, sale.price))
        .update_state_by_key("categories", |prices, before: Option<(u64, u64)>| {
            let (sum, count) = before.unwrap_or((0, 0));
            Some((sum + prices.iter().sum::<u64>(), count + prices.len() as u64))
        })
        .map(|(category, (sum, count))| Row::Category { category, mean_price: sum / count })
}

/// Query 5: in each window, the auctions that were bid for most often.
fn hot_items(bids: &DStream<Bid>) -> DStream<Row> {
    in_time(&bids.map(|bid| (bid.time_ms, (bid.auction, ()))))
        .window("bids", EventWindows::sliding(WINDOW, SLIDE))
        .count()
        .results()
        .map(|window| (window.end_ms, (window.value, vec![window.key])))
        // All of a window come in one batch.
        .reduce_by_key(keep_highest)
        .flat_map(|(window_end_ms, (bids, auctions)), out| {
            auctions.into_iter().for_each(|auction| out.emit(Row::HotItem { window_end_ms, auction, bids }));
        })
}

/// Of two numbers the higher one, with all that have it.
fn keep_highest<T>(mut one: (u64, Vec<T>), mut other: (u64, Vec<T>)) -> (u64, Vec<T>) {
    match one.0.cmp(&other.0) {
        std::cmp::Ordering::Less => other,
        std::cmp::Ordering::Greater => one,
        std::cmp::Ordering::Equal => {
            one.1.append(&mut other.1);
            one
        }
    }
}

/// Query 6: for each seller of something that was sold, what the last ten things cost in the mean.
fn mean_price_of_seller(sales: &DStream<Sale>) -> DStream<Row> {
    sales.map(|sale| (sale.seller, sale)).transform_with_state("sellers", |seller, sales: &[Sale]| {
        // Auctions that end in a batch end after those of the batches before.
        let mut sales = sales.to_vec();
        sales.sort();
        let mut prices: Vec<u64> = seller.take().unwrap_or_default();
        for Sale { seller: id, expires_ms, auction, price, .. } in sales {
            prices.drain(..prices.len().saturating_sub(9));
            prices.push(price);
            let mean_price = prices.iter().sum::<u64>() / prices.len() as u64;
            seller.emit(Row::Seller { seller: id, expires_ms, auction, mean_price });
        }
        seller.update(prices);
    })
}

/// Query 7: in each window, the highest bids.
fn highest_bid(bids: &DStream<Bid>) -> DStream<Row> {
    in_time(&bids.map(|bid| (bid.time_ms, ((), (bid.price, vec![bid])))))
        .window("highest", EventWindows::tumbling(WINDOW))
        .reduce(keep_highest)
        .results()
        .flat_map(|window, out| {
            let rows = window.value.1.into_iter();
            rows.for_each(|bid| out.emit(Row::Highest { window_end_ms: window.end_ms, bid }));
        })
}

/// Query 8: in each window, who came and sold something at once.
fn new_sellers(events: &DStream<Event>) -> DStream<Row> {
    let moves = events.flat_map(|event, out| match event {
        Event::Person(person) => out.emit((person.time_ms, (person.id, (Some(person.name), false)))),
        Event::Auction(auction) => out.emit((auction.time_ms, (auction.seller, (None, true)))),
        Event::Bid(_) => {}
    });
    in_time(&moves)
        .window("moves", EventWindows::tumbling(WINDOW))
        .reduce(|one, other| (one.0.or(other.0), one.1 || other.1))
        .results()
        .flat_map(|window, out| {
            if let (Some(name), true) = window.value {
                out.emit(Row::NewSeller { window_end_ms: window.end_ms, person: window.key, name });
            }
        })
}

/// Records that come with their times.
fn in_time<T: Record>(records: &DStream<(u64, T)>) -> EventStream<T> {
    records
        .with_event_time(Watermarks::bounded("events", OUT_OF_ORDER), |(time_ms, _)| *time_ms)
        .map(|(_, record)| record)
}
