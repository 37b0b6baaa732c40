//! What we ask of a PACS over associations: C-ECHO, C-FIND, C-GET, C-MOVE, C-STORE (PS3.4, annexes A, B and C).

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::association::{Agreed, Association, Message, Slots};
use crate::command::{Command, CommandError, Field, Status, element};
use crate::contexts::{Proposal, known, service};
use crate::dataset::{Attributes, DataError, FileMeta, syntax, tag};
use crate::error::{NetError, Peer, Waiting};
use crate::intake::{Intake, Retrieved, Sink, Wanted};
use crate::moves::MoveDestination;
use crate::query::{FoundStudies, Query, Sorting};
use crate::uid::{AeTitle, Uid};
use crate::wire::{Deadlines, Wire};

/// Medium priority (PS3.7, 9.3.2.1 and its like).
const MEDIUM: u16 = 0;
/// After a C-MOVE was answered for the last time all should have come; what has not gets this much longer.
const AFTER_MOVE: Duration = Duration::from_secs(5);
/// A PACS that is told to end a retrieval has this long to say that it did.
const CANCELLING: Duration = Duration::from_secs(3);
/// An association that rested longer than this may have been ended by the PACS: another one is asked for.
const RESTING: Duration = Duration::from_secs(5);

/// A PACS and how to speak to it.
#[derive(Clone)]
pub struct PacsOptions {
    /// Our own title.
    pub calling: AeTitle,
    /// Its title.
    pub called: AeTitle,
    /// Where it is.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// TLS, if it wants that.
    pub tls: Option<Arc<ClientConfig>>,
    /// How long it may take.
    pub deadlines: Deadlines,
    /// How many associations there may be at once, over all clones.
    pub slots: Slots,
}

impl PacsOptions {
    /// With usual deadlines, two associations at once, and no TLS.
    pub fn new(calling: AeTitle, called: AeTitle, host: &str, port: u16) -> Self {
        Self {
            calling,
            called,
            host: host.to_owned(),
            port,
            tls: None,
            deadlines: Deadlines::default(),
            slots: Slots::new(2),
        }
    }
}

/// A PACS. Each verb is an association of its own.
#[derive(Clone)]
pub struct Pacs {
    options: PacsOptions,
    peer: Peer,
    /// Of all clones.
    is_stopped: Arc<AtomicBool>,
}

/// A retrieval that was asked for.
struct Asked {
    context: u8,
    id: u16,
    reply: Field,
}

/// An instance that a PACS says it has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Its series.
    pub series: Uid,
    /// Itself.
    pub instance: Uid,
    /// Its SOP class, where the PACS tells it.
    pub class: Option<Uid>,
}

/// What a PACS offers for C-GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Of the classes that were asked for, those that it sends over our association, with how many of the transfer
    /// syntaxes that we know.
    pub classes: Vec<(Uid, usize)>,
}

impl Pacs {
    /// A PACS; nothing is asked yet.
    pub fn new(options: PacsOptions) -> Self {
        let peer = Peer::new(format!("{}@{}:{}", options.called, options.host, options.port));
        let is_stopped = Arc::default();
        Self {
            options,
            peer,
            is_stopped,
        }
    }

    /// Ends retrievals, those of all clones, and lets none begin: also those whose PACS says nothing now.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }

    fn goes_on(&self) -> bool {
        !self.is_stopped.load(Ordering::Acquire)
    }

    /// A retrieval begins, unless none is to.
    fn begin(&self) -> Result<(), NetError> {
        if self.goes_on() { Ok(()) } else { Err(self.stopped()) }
    }

    fn stopped(&self) -> NetError {
        NetError::Stopped {
            peer: self.peer.clone(),
        }
    }

    /// Its name in messages.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// C-ECHO: whether it answers us.
    ///
    /// # Errors
    /// Where it does not.
    pub fn echo(&self) -> Result<(), NetError> {
        let mut association = self.associate(Proposal::of_service(service::VERIFICATION))?;
        let context = self.context(&association, service::VERIFICATION, "C-ECHO")?;
        let id = association.next_message();
        let request = Command::request(Field::EchoRequest, id, &known(service::VERIFICATION));
        association.send(context, request, None)?;
        let message = association.expect()?;
        let status = self.status(&association, &message.command, Field::EchoReply, id)?;
        self.judge("C-ECHO", status)?;
        association.release();
        Ok(())
    }

    /// Whether it would send instances of `classes` over an association of ours; asks for none.
    ///
    /// # Errors
    /// Where it offers no C-GET at all.
    pub fn offer(&self, classes: &[Uid]) -> Result<Offer, NetError> {
        let association = self.associate(Proposal::of_retrieval(classes))?;
        self.context(&association, service::GET, "C-GET")?;
        let count = |class: &Uid| {
            association
                .agreed()
                .iter()
                .filter(|agreed| agreed.class == *class)
                .count()
        };
        let granted = classes.iter().filter(|class| association.provides(class));
        let classes = granted
            .map(|class| (class.clone(), count(class)))
            .filter(|(_, count)| *count > 0)
            .collect();
        association.release();
        Ok(Offer { classes })
    }

    /// C-FIND at study root: hands each answer to `each`.
    ///
    /// # Errors
    /// Where the PACS cannot answer.
    pub fn find(&self, query: &Attributes, mut each: impl FnMut(Attributes)) -> Result<(), NetError> {
        let mut association = self.associate(Proposal::of_service(service::FIND))?;
        self.find_over(&mut association, query, &mut each)?;
        association.release();
        Ok(())
    }

    fn find_over(
        &self,
        association: &mut Association,
        query: &Attributes,
        each: &mut dyn FnMut(Attributes),
    ) -> Result<(), NetError> {
        let each = &mut |answer| {
            each(answer);
            Ok(true)
        };
        self.find_until(association, query, each).map(|_| ())
    }

    /// Hands over answers as long as they are wanted; whether all were. If not, the association is of no more use.
    fn find_until(
        &self,
        association: &mut Association,
        query: &Attributes,
        each: &mut dyn FnMut(Attributes) -> Result<bool, DataError>,
    ) -> Result<bool, NetError> {
        let context = self.context(association, service::FIND, "C-FIND")?;
        let id = association.next_message();
        let mut request = Command::request(Field::FindRequest, id, &known(service::FIND));
        request.set_number(element::PRIORITY, MEDIUM);
        association.send(context, request, Some(&query.encode()))?;
        loop {
            let message = association.expect()?;
            let status = self.status(association, &message.command, Field::FindReply, id)?;
            if !status.is_pending() {
                return self.judge("C-FIND", status).map(|()| true);
            }
            let bytes = association.small_data()?;
            if !Attributes::decode(&bytes)
                .and_then(&mut *each)
                .map_err(|error| association.protocol(error))?
            {
                return Ok(false);
            }
        }
    }

    /// The studies that fit a query, if they are no more than `most`.
    ///
    /// # Errors
    /// Where the PACS cannot answer, or passes over a key.
    pub fn studies_that_fit(&self, query: &Query, most: usize) -> Result<FoundStudies, NetError> {
        let mut association = self.associate(Proposal::of_service(service::FIND))?;
        let mut sorting = Sorting::new(query);
        self.find_until(&mut association, &query.identifier(), &mut |answer| {
            let fit = query.fit(|tag| answer.texts(tag));
            let study = answer.uid(tag::STUDY);
            study.map(|study| sorting.take(study, fit) <= most)
        })
        .and_then(|is_whole| is_whole.then_some(()).ok_or_else(|| self.too_many(most)))?;
        let key = sorting.ignored.map_or(Ok(()), Err);
        key.map_err(|key| NetError::Ignored {
            peer: self.peer.clone(),
            key,
        })?;
        for study in std::mem::take(&mut sorting.untold) {
            if !self.has_modality(&mut association, &study, query.modality().unwrap_or_default())? {
                sorting.remove(&study);
            }
        }
        association.release();
        Ok(sorting.found())
    }

    fn too_many(&self, most: usize) -> NetError {
        NetError::TooMany {
            peer: self.peer.clone(),
            most,
        }
    }

    fn has_modality(&self, association: &mut Association, study: &Uid, modality: &str) -> Result<bool, NetError> {
        let query = Attributes::new()
            .with(tag::QUERY_LEVEL, "SERIES")
            .with_uids(tag::STUDY, [study])
            .with(tag::SERIES, "")
            .with(tag::MODALITY, "");
        let mut has_modality = false;
        self.find_over(association, &query, &mut |answer| {
            has_modality |= answer.text(tag::MODALITY).as_deref() == Some(modality);
        })?;
        Ok(has_modality)
    }

    /// The instances of a study, or of one series of it, or that one instance, where the PACS has them.
    ///
    /// # Errors
    /// Where it cannot answer.
    pub fn instances(&self, wanted: &Wanted) -> Result<Vec<Found>, NetError> {
        // one association for all: queries below the study need the series (PS3.4, C.4.1.2.1)
        let mut association = self.associate(Proposal::of_service(service::FIND))?;
        let series = match &wanted.series {
            Some(series) => vec![series.clone()],
            None => {
                let query = Attributes::new()
                    .with(tag::QUERY_LEVEL, "SERIES")
                    .with_uids(tag::STUDY, [&wanted.study])
                    .with(tag::SERIES, "");
                let mut series = Vec::new();
                self.find_over(&mut association, &query, &mut |answer| {
                    series.push(answer.uid(tag::SERIES));
                })?;
                let series: Result<Vec<Uid>, DataError> = series.into_iter().collect();
                series.map_err(|error| association.protocol(error))?
            }
        };
        let mut found = Vec::new();
        for series in series {
            let query = Attributes::new()
                .with(tag::QUERY_LEVEL, "IMAGE")
                .with_uids(tag::STUDY, [&wanted.study])
                .with_uids(tag::SERIES, [&series])
                .with_uids(tag::SOP_INSTANCE, &wanted.instances)
                .with(tag::SOP_CLASS, "");
            let mut strange = None;
            self.find_over(
                &mut association,
                &query,
                &mut |answer| match answer.uid(tag::SOP_INSTANCE) {
                    Ok(instance) => found.push(Found {
                        series: series.clone(),
                        instance,
                        class: answer.uid(tag::SOP_CLASS).ok(),
                    }),
                    Err(error) => strange = Some(error),
                },
            )?;
            if let Some(error) = strange {
                return Err(association.protocol(error));
            }
        }
        association.release();
        found.sort();
        found.dedup();
        // a PACS that does not go by lists of instances answers with the whole series
        found.retain(|one| wanted.instances.is_empty() || wanted.instances.contains(&one.instance));
        Ok(found)
    }

    /// C-GET: retrieves over the same association. `classes` are the SOP classes that will come, where they are
    /// known: then each can come in any transfer syntax.
    ///
    /// # Errors
    /// Where the exchange failed; what `sink` got before is whole. Instances that are not what was asked for are no
    /// error of the exchange.
    pub fn get(&self, wanted: &Wanted, classes: &[Uid], sink: &mut Sink<'_>) -> Result<Retrieved, NetError> {
        self.begin()?;
        let mut association = self.associate(Proposal::of_retrieval(classes))?;
        let context = self.context(&association, service::GET, "C-GET")?;
        let is_lent = |class: &Uid| association.provides(class) && association.context_of(class.as_str()).is_some();
        let asked: Vec<Uid> = association.agreed().iter().map(|agreed| agreed.class.clone()).collect();
        if !asked.iter().any(is_lent) {
            return Err(NetError::NoRole {
                peer: self.peer.clone(),
            });
        }
        let id = association.next_message();
        let mut request = Command::request(Field::GetRequest, id, &known(service::GET));
        request.set_number(element::PRIORITY, MEDIUM);
        association.send(context, request, Some(&wanted.identifier().encode()))?;
        let mut intake = Intake::new(Some(wanted), sink);
        let reply = Field::GetReply;
        let asked = Asked { context, id, reply };
        let mut unanswered = None;
        let ended = self.take_all(&mut association, &asked, &mut intake, &mut unanswered);
        self.end(association, &asked, ended, unanswered)?;
        Ok(intake.retrieved)
    }

    /// Takes what comes over our own association, until the PACS has said its last word. Where that fails within an
    /// instance, its message is left in `unanswered`.
    fn take_all(
        &self,
        association: &mut Association,
        asked: &Asked,
        intake: &mut Intake<'_, '_>,
        unanswered: &mut Option<Message>,
    ) -> Result<(), NetError> {
        while association.wait(&|| self.goes_on())? {
            let message = association.expect()?;
            if message.command.field() == Field::StoreRequest {
                let message = unanswered.insert(message);
                intake.store(association, message)?;
                *unanswered = None;
            } else if self.follow(association, &message.command, asked, &mut intake.retrieved)? {
                return Ok(());
            }
        }
        Err(self.stopped())
    }

    /// Ends the association of a retrieval. Where it is us who break off, the PACS is told to end (PS3.7, 9.3.3.3 and
    /// 9.3.4.3), so that it does not go on for nobody: many send to the end what is moved, whatever becomes of us.
    fn end(
        &self,
        mut association: Association,
        asked: &Asked,
        ended: Result<(), NetError>,
        unanswered: Option<Message>,
    ) -> Result<(), NetError> {
        match &ended {
            Ok(()) => association.release(),
            Err(NetError::Stopped { .. }) => {
                if self.cancel(&mut association, asked, unanswered).is_ok() {
                    association.release();
                }
            }
            Err(NetError::Late { .. }) => {
                // it may read that some time; nobody waits for a PACS that is late already
                association.hurry(CANCELLING);
                let _ = association.send(asked.context, Command::cancel(asked.id), None);
            }
            Err(_) => {}
        }
        ended
    }

    /// Has the PACS end a retrieval, and waits a moment for its last word.
    fn cancel(
        &self,
        association: &mut Association,
        asked: &Asked,
        unanswered: Option<Message>,
    ) -> Result<(), NetError> {
        association.hurry(CANCELLING);
        association.send(asked.context, Command::cancel(asked.id), None)?;
        let mut next = unanswered;
        loop {
            let message = match next.take() {
                Some(message) => message,
                None => association.expect()?,
            };
            if message.command.field() == Field::StoreRequest {
                association.drain()?;
                association.reply(&message, Status::OUT_OF_RESOURCES)?;
            } else if !self.answer(association, &message.command, asked)?.is_pending() {
                return Ok(());
            }
        }
    }

    /// C-MOVE: has the PACS send to `destination`, whose title it must know. Several moves at once are told apart.
    ///
    /// # Errors
    /// As for [`Pacs::get`].
    pub fn fetch_by_move(
        &self,
        wanted: &Wanted,
        destination: &MoveDestination,
        sink: &mut Sink<'_>,
    ) -> Result<Retrieved, NetError> {
        let mut intake = Intake::new(Some(wanted), sink);
        let is_stopped = Arc::clone(&intake.is_stopped);
        let begun = destination.begin(&self.options.calling, wanted);
        let (number, answered) = (begun.number, begun.answered());
        let moved = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                // sent on drop, whatever becomes of the request
                let mut answered = answered;
                let moved = self.request_move(wanted, destination.title(), number, &is_stopped);
                answered.told = moved.as_ref().map_or(Some(0), |told| told.sent_count);
                moved
            });
            begun.take(&mut intake, AFTER_MOVE);
            asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let mut retrieved = intake.retrieved;
        let told = moved?;
        retrieved.failed = told.failed;
        retrieved.failed_count = told.failed_count;
        retrieved.sent_count = told.sent_count;
        Ok(retrieved)
    }

    fn request_move(
        &self,
        wanted: &Wanted,
        destination: &AeTitle,
        id: u16,
        is_stopped: &AtomicBool,
    ) -> Result<Retrieved, NetError> {
        self.begin()?;
        let mut association = self.associate(Proposal::of_service(service::MOVE))?;
        let context = self.context(&association, service::MOVE, "C-MOVE")?;
        let mut request = Command::request(Field::MoveRequest, id, &known(service::MOVE));
        request.set_number(element::PRIORITY, MEDIUM);
        request.set_text(element::MOVE_DESTINATION, destination.as_str());
        association.send(context, request, Some(&wanted.identifier().encode()))?;
        let mut told = Retrieved::default();
        let reply = Field::MoveReply;
        let asked = Asked { context, id, reply };
        let goes_on = || self.goes_on() && !is_stopped.load(Ordering::Acquire);
        let mut follow = || {
            while association.wait(&goes_on)? {
                let message = association.expect()?;
                if self.follow(&mut association, &message.command, &asked, &mut told)? {
                    return Ok(());
                }
            }
            Err(self.stopped())
        };
        let ended = follow();
        self.end(association, &asked, ended, None)?;
        Ok(told)
    }

    /// Reads an answer to a retrieval; whether it is the last one.
    fn follow(
        &self,
        association: &mut Association,
        command: &Command,
        asked: &Asked,
        retrieved: &mut Retrieved,
    ) -> Result<bool, NetError> {
        let status = self.answer(association, command, asked)?;
        if status.is_pending() {
            return Ok(false);
        }
        let count = |name| command.number(name).map_or(0, u64::from);
        retrieved.failed_count = count(element::FAILED);
        let done = count(element::COMPLETED) + count(element::WARNING);
        retrieved.sent_count = command.number(element::COMPLETED).is_ok().then_some(done);
        if command.has_data() {
            let bytes = association.small_data()?;
            // a list of failures that cannot be read fails nothing that came
            if let Ok(attributes) = Attributes::decode(&bytes) {
                retrieved.failed = attributes.uids(tag::FAILED_INSTANCES);
            }
        }
        // some instances came, or were tried: each is told for itself
        if !status.is_success() && done == 0 && retrieved.kept.is_empty() && retrieved.strange.is_empty() {
            self.judge(asked.reply.name(), status)?;
        }
        Ok(true)
    }

    /// C-STORE of one file of PS3.10, as it is encoded.
    ///
    /// # Errors
    /// Where the PACS does not take it, or `file` is none.
    pub fn store(&self, file: &mut dyn Read) -> Result<(), NetError> {
        self.storing().store(file)
    }

    /// C-STORE of several files, over one association as far as they are of one kind.
    pub fn storing(&self) -> Storing {
        Storing {
            pacs: self.clone(),
            open: None,
        }
    }

    fn associate(&self, proposal: Proposal) -> Result<Association, NetError> {
        let options = &self.options;
        let slot = options
            .slots
            .take(options.deadlines.whole)
            .ok_or_else(|| NetError::Late {
                peer: self.peer.clone(),
                waiting: Waiting::Turn,
                seconds: options.deadlines.whole.as_secs(),
            })?;
        let wire = Wire::connect(
            &options.host,
            options.port,
            options.tls.as_ref(),
            self.peer.clone(),
            options.deadlines,
        )?;
        Association::request(wire, &options.calling, &options.called, proposal, Some(slot))
    }

    fn context(&self, association: &Association, class: &str, service: &'static str) -> Result<u8, NetError> {
        let context = association.context_of(class);
        let usable = context.filter(|agreed| agreed.transfer_syntax.as_str() == syntax::IMPLICIT_LITTLE);
        usable.map(|agreed| agreed.id).ok_or_else(|| NetError::NoService {
            peer: self.peer.clone(),
            service,
        })
    }

    fn answer(&self, association: &Association, command: &Command, asked: &Asked) -> Result<Status, NetError> {
        self.status(association, command, asked.reply, asked.id)
    }

    fn status(&self, association: &Association, command: &Command, field: Field, id: u16) -> Result<Status, NetError> {
        if command.field() != field {
            return Err(association.protocol(CommandError::Unexpected(command.field().name())));
        }
        let status = command.answers(id).and_then(|()| command.status());
        status.map_err(|error| association.protocol(error))
    }

    fn judge(&self, operation: &'static str, status: Status) -> Result<(), NetError> {
        if status.is_success() {
            return Ok(());
        }
        Err(NetError::Status {
            peer: self.peer.clone(),
            operation,
            status,
        })
    }
}

/// Sends instances one after the other.
pub struct Storing {
    pacs: Pacs,
    /// The association that is still good, and since when it rests.
    open: Option<(Association, Instant)>,
}

impl Storing {
    /// C-STORE of one file of PS3.10, as it is encoded.
    ///
    /// # Errors
    /// Where the PACS does not take it, or `file` is none.
    pub fn store(&mut self, mut file: &mut dyn Read) -> Result<(), NetError> {
        let peer = || self.pacs.peer.clone();
        let read = FileMeta::read(&mut file);
        let (meta, _) = read.map_err(|source| NetError::Source { peer: peer(), source })?;
        let fitting = |agreed: &&Agreed| agreed.class == meta.class && agreed.transfer_syntax == meta.transfer_syntax;
        let kept = self.open.take().filter(|(_, since)| since.elapsed() < RESTING);
        let mut association = match kept {
            Some((kept, _)) if kept.agreed().iter().any(|agreed| fitting(&agreed)) => kept,
            other => {
                if let Some((other, _)) = other {
                    other.release();
                }
                let proposal = Proposal::of_storage(&meta.class, &meta.transfer_syntax);
                self.pacs.associate(proposal)?
            }
        };
        let context = association.agreed().iter().find(fitting).map(|agreed| agreed.id);
        let context = context.ok_or_else(|| NetError::NoContext {
            peer: peer(),
            class: meta.class.clone(),
            transfer_syntax: meta.transfer_syntax.clone(),
        })?;
        let id = association.next_message();
        let mut request = Command::request(Field::StoreRequest, id, &meta.class);
        request.set_number(element::PRIORITY, MEDIUM);
        request.set_uid(element::AFFECTED_INSTANCE, &meta.instance);
        association.send_stream(context, request, file)?;
        let message = association.expect()?;
        let status = self
            .pacs
            .status(&association, &message.command, Field::StoreReply, id)?;
        // a refused instance is no fault of the association
        self.open = Some((association, Instant::now()));
        self.pacs.judge("C-STORE", status)
    }
}

impl Storing {
    /// Its association, if one is open, to be released by somebody who has the time; the next instance opens another.
    pub fn take_open(&mut self) -> Option<Association> {
        self.open.take().map(|(association, _)| association)
    }

    /// Ends the association, if one is open: the next instance opens another.
    pub fn rest(&mut self) {
        if let Some(association) = self.take_open() {
            association.release();
        }
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        self.rest();
    }
}

impl Wanted {
    /// As the identifier of a retrieval (PS3.4, C.4.2.1.4 and C.4.3.1.3).
    fn identifier(&self) -> Attributes {
        let attributes = Attributes::new().with_uids(tag::STUDY, [&self.study]);
        let Some(series) = &self.series else {
            return attributes.with(tag::QUERY_LEVEL, "STUDY");
        };
        let attributes = attributes.with_uids(tag::SERIES, [series]);
        if self.instances.is_empty() {
            return attributes.with(tag::QUERY_LEVEL, "SERIES");
        }
        attributes
            .with(tag::QUERY_LEVEL, "IMAGE")
            .with_uids(tag::SOP_INSTANCE, &self.instances)
    }
}
