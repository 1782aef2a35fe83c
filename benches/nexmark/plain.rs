//! The same queries as plain loops over the events, with hash maps that keep nothing: what the jobs are measured against,
//! and what says whether they are right.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::RandomState;

use crate::events::{Bid, Event};
use crate::queries::{OUT_OF_ORDER, Row, SLIDE, Sale, WINDOW};

type HashMap<K, V> = hashbrown::HashMap<K, V, RandomState>;

const WINDOW_MS: u64 = WINDOW.as_millis() as u64;
const SLIDE_MS: u64 = SLIDE.as_millis() as u64;

/// Takes a batch of events and puts out what they come to.
pub trait Plain {
    fn batch(&mut self, events: &mut dyn Iterator<Item = Event>, out: &mut dyn FnMut(Row));
}

/// The query of this name.
pub fn query(name: &str) -> Box<dyn Plain> {
    match name {
        "q0" => stateless(Some),
        "q1" => stateless(|bid| Some(Bid { price: bid.price * 908 / 1_000, ..bid })),
        "q2" => Box::new(Selection),
        "q3" => Box::<LocalItems>::default(),
        "q4" => Box::<MeanPriceOfCategory>::default(),
        "q5" => Box::<HotItems>::default(),
        "q6" => Box::<MeanPriceOfSeller>::default(),
        "q7" => Box::<HighestBid>::default(),
        "q8" => Box::<NewSellers>::default(),
        _ => panic!("{name} is no query"),
    }
}

/// How far the time of the events has come that a query takes.
#[derive(Default)]
struct Watermark(u64);

impl Watermark {
    fn see(&mut self, time_ms: u64) {
        self.0 = self.0.max(time_ms.saturating_sub(OUT_OF_ORDER.as_millis() as u64));
    }
}

struct Stateless<F>(F);

fn stateless(each: impl Fn(Bid) -> Option<Bid> + 'static) -> Box<dyn Plain> {
    Box::new(Stateless(each))
}

impl<F: Fn(Bid) -> Option<Bid>> Plain for Stateless<F> {
    fn batch(&mut self, events: &mut dyn Iterator<Item = Event>, out: &mut dyn FnMut(Row)) {
        for event in events {
            if let Event::Bid(bid) = event
                && let Some(bid) = self.0(bid)
            {
                out(Row::Bid(bid));
            }
        }
    }
}

struct Selection;

impl Plain for Selection {
    fn batch(&mut self, events: &mut dyn Iterator<Item = Event>, out: &mut dyn FnMut(Row)) {
        for event in events {
            if let Event::Bid(Bid { auction, price, .. }) = event
                && auction % 123 == 0
            {
                out(Row::Price { auction, price });
            }
        }
    }
}

#[derive(Default)]
struct LocalItems {
    people: HashMap<u64, (String, String, String)>,
    waiting: HashMap<u64, Vec<u64>>,
}

impl Plain for LocalItems {
    fn batch(&mut self, events: &mut dyn Iterator<Item = Event>, out: &mut dyn FnMut(Row)) {
        let row = |auction, (name, city, state): &(String, String, String)| Row::LocalItem {
            auction,
            name: name.clone(),
            city: city.clone(),
            state: state.clone(),
        };
        for event in events {
            match event {
                Event::Person(person) if ["or", "id", "ca"].contains(&person.state.as_str()) => {
                    let known = (person.name, person.city, person.state);
                    for auction in self.waiting.remove(&person.id).into_iter().flatten() {
                        out(row(auction, &known));
                    }
                    self.people.insert(person.id, known);
                }
                Event::Auction(auction) if auction.category == 10 => match self.people.get(&auction.seller) {
                    Some(known) => out(row(auction.id, known)),
                    None => self.waiting.entry(auction.seller).or_default().push(auction.id),
                },
                _ => {}
            }
        }
    }
}

/// An auction that is open.
struct Open {
    opened_ms: u64,
    expires_ms: u64,
    seller: u64,
    category: u64,
    best: Option<u64>,
}

impl Open {
    fn offer(&mut self, time_ms: u64, price: u64) {
        if (self.opened_ms..=self.expires_ms).contains(&time_ms) {
            self.best = self.best.max(Some(price));
        }
    }
}

#[derive(Default)]
struct WinningBids {
    watermark: Watermark,
    open: HashMap<u64, Open>,
    /// Of those that are open.
    ends: BTreeSet<(u64, u64)>,
    /// Times and prices of bids for what is not open, by auction.
    early: HashMap<u64, Vec<(u64, u64)>>,
}

impl WinningBids {
    fn batch(&mut self, events: &mut dyn Iterator<Item = Event>) -> Vec<Sale> {
        for event in events {
            match event {
                Event::Person(_) => {}
                Event::Auction(auction) => {
                    let (opened_ms, expires_ms) = (auction.time_ms, auction.expires_ms);
                    let (seller, category) = (auction.seller, auction.category);
                    let mut open = Open { opened_ms, expires_ms, seller, category, best: None };
                    let early = self.early.remove(&auction.id).into_iter().flatten();
                    early.for_each(|(time_ms, price)| open.offer(time_ms, price));
                    self.watermark.see(opened_ms);
                    self.ends.insert((expires_ms, auction.id));
                    self.open.insert(auction.id, open);
                }
                Event::Bid(bid) => {
                    self.watermark.see(bid.time_ms);
                    match self.open.get_mut(&bid.auction) {
                        Some(open) => open.offer(bid.time_ms, bid.price),
                        None => self.early.entry(bid.auction).or_default().push((bid.time_ms, bid.price)),
                    }
                }
            }
        }
        self.early.retain(|_, bids| bids.iter().any(|(time_ms, _)| *time_ms >= self.watermark.0));
        let mut sales = Vec::new();
        while let Some((expires_ms, auction)) = self.ends.first().copied()
            && expires_ms < self.watermark.0
        {
            self.ends.pop_first();
            if let Some(Open { seller, category, best: Some(price), .. }) = self.open.remove(&auction) {
                sales.push(Sale { expires_ms, auction, seller, category, price });
            }
        }
        sales
    }
}

#[derive(Default)]
struct MeanPriceOfCategory {
    winning_bids: WinningBids,
    prices: HashMap<u64, (u64, u64)>,
}

impl Plain for MeanPriceOfCategory {
    fn batch(&mut self, events: &mut dyn Iterator<Item = Event>, out: &mut dyn FnMut(Row)) {
        let mut changed = BTreeSet::new();
        for sale in self.winning_bids.batch(events) {
            let (sum, count) = self.prices.entry(sale.category).or_default();
            (*sum, *count) = (*sum + sale.price, *count + 1);
            changed.insert(sale.category);
        }
        for category in changed {
            let (sum, count) = self.prices[&category];
            out(Row::Category { category, mean_price: sum / count });
        }
    }
}

#[derive(Default)]
struct MeanPriceOfSeller {
    winning_bids: WinningBids,
    prices: HashMap<u64, VecDeque<u64>>,
}

impl Plain for MeanPriceOfSeller {
    fn batch(&mut self, events: &mut dyn Iterator<Item = Event>, out: &mut dyn FnMut(Row)) {
        for Sale { expires_ms, auction, seller, price, .. } in self.winning_bids.batch(events) {
            let prices = self.prices.entry(seller).or_default();
            if prices.len() == 10 {
                prices.pop_front();
            }
            prices.push_back(price);
            let mean_price = prices.iter().sum::<u64>() / prices.len() as u64;
            out(Row::Seller { seller, expires_ms, auction, mean_price });
        }
    }
}

#[derive(Default)]
struct HotItems {
    watermark: Watermark,
    /// Bids per auction, by the begin of the slide.
    slides: BTreeMap<u64, HashMap<u64, u64>>,
    /// The end of the next window, once there was a bid.
    next_end_ms: Option<u64>,
}

impl Plain for HotItems {
    fn batch(&mut self, events: &mut dyn Iterator<Item = Event>, out: &mut dyn FnMut(Row)) {
        for event in events {
            let Event::Bid(bid) = event else { continue };
            self.watermark.see(bid.time_ms);
            let counts = self.slides.entry(bid.time_ms / SLIDE_MS * SLIDE_MS).or_default();
            *counts.entry(bid.auction).or_default() += 1;
        }
        let first_ms = self.slides.first_key_value().map(|(start_ms, _)| start_ms + SLIDE_MS);
        let mut next_ms = self.next_end_ms.or(first_ms).unwrap_or(u64::MAX);
        while next_ms <= self.watermark.0 {
            let mut counts = HashMap::default();
            for slide in self.slides.range(next_ms - WINDOW_MS..next_ms).flat_map(|(_, slide)| slide) {
                *counts.entry(*slide.0).or_default() += *slide.1;
            }
            let most = counts.values().copied().max();
            for (auction, bids) in counts.into_iter().filter(|(_, bids)| Some(*bids) == most) {
                out(Row::HotItem { window_end_ms: next_ms, auction, bids });
            }
            next_ms += SLIDE_MS;
            self.slides = self.slides.split_off(&(next_ms - WINDOW_MS));
        }
        self.next_end_ms = Some(next_ms).filter(|next_ms| *next_ms != u64::MAX);
    }
}

/// The end of the window that a time is in.
fn window_end_ms(time_ms: u64) -> u64 {
    (time_ms / WINDOW_MS + 1) * WINDOW_MS
}

#[derive(Default)]
struct HighestBid {
    watermark: Watermark,
    windows: BTreeMap<u64, Vec<Bid>>,
}

impl Plain for HighestBid {
    fn batch(&mut self, events: &mut dyn Iterator<Item = Event>, out: &mut dyn FnMut(Row)) {
        for event in events {
            let Event::Bid(bid) = event else { continue };
            self.watermark.see(bid.time_ms);
            let highest = self.windows.entry(window_end_ms(bid.time_ms)).or_default();
            let price = highest.first().map_or(0, |bid| bid.price);
            if bid.price > price {
                highest.clear();
            }
            if bid.price >= price {
                highest.push(bid);
            }
        }
        while let Some(window) = self.windows.first_entry()
            && *window.key() <= self.watermark.0
        {
            let (window_end_ms, highest) = window.remove_entry();
            highest.into_iter().for_each(|bid| out(Row::Highest { window_end_ms, bid }));
        }
    }
}

#[derive(Default)]
struct NewSellers {
    watermark: Watermark,
    /// By the end of the window and person: who came, and who sold.
    windows: BTreeMap<u64, HashMap<u64, (Option<String>, bool)>>,
}

impl Plain for NewSellers {
    fn batch(&mut self, events: &mut dyn Iterator<Item = Event>, out: &mut dyn FnMut(Row)) {
        for event in events {
            let (time_ms, person, name) = match event {
                Event::Person(person) => (person.time_ms, person.id, Some(person.name)),
                Event::Auction(auction) => (auction.time_ms, auction.seller, None),
                Event::Bid(_) => continue,
            };
            self.watermark.see(time_ms);
            let window = self.windows.entry(window_end_ms(time_ms)).or_default();
            let (known, sells) = window.entry(person).or_default();
            match name {
                Some(name) => *known = Some(name),
                None => *sells = true,
            }
        }
        while let Some(window) = self.windows.first_entry()
            && *window.key() <= self.watermark.0
        {
            let (window_end_ms, people) = window.remove_entry();
            for (person, both) in people {
                if let (Some(name), true) = both {
                    out(Row::NewSeller { window_end_ms, person, name });
                }
            }
        }
    }
}
