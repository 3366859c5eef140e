/**
 * Every English sentence and word that a reader sees, in one place.
 *
 * Two rules: a "probability" is what a calibrated model gives, all else is a "score"; a study is "flagged" or "not flagged", never "cleared".
 */

const plural = (n: number, one: string, many: string) => `${n} ${n === 1 ? one : many}`;

export const messages = {
  title: 'ictus',
  disclaimer: 'For research, not for clinical use. Trained on synthetic phantoms only.',
  skip: 'Skip to the content',
  unknown: 'not known',

  errors: {
    unreachable: 'The server cannot be reached. The page tries again when the connection is back.',
    key: 'The server wants an API key.',
    notJson: 'The server answered with something that is not JSON.',
    notMultipart: 'The server answered with something that is not multipart/related.',
    status: (status: number) => `The server answered with status ${status}.`,
    request: (id: string) => `(Request ${id}.)`,
    unknown: 'Something failed without saying why.',
    retry: 'Try again',
  },

  key: {
    title: 'API key',
    explain:
      'This server answers only to those who have a key. It stays in this tab and is forgotten when the tab is closed.',
    label: 'Key',
    enter: 'Continue',
  },

  signIn: {
    title: 'Sign in',
    out: 'Sign out',
    explain: 'A verdict is given in your name. Ask the administrator for an account.',
    needed: 'This server answers only to those whom it knows.',
    name: 'Name',
    password: 'Password',
    enter: 'Sign in',
    at: (provider: string) => `Sign in with ${provider}`,
    /** Why nobody signed in at the provider. */
    refused: {
      provider: 'The sign-in service cannot be reached. Try again later, or sign in with name and password.',
      state:
        'That sign-in did not begin in this browser, was used before, or took longer than ten minutes. Sign in again.',
      refused: 'The sign-in service refused the sign-in.',
      token:
        'The answer of the sign-in service was not acceptable; the administrator finds the reason in the server’s log.',
      role: 'The sign-in service gives you no role that means something here. Ask the administrator for one.',
      disabled: 'Your account was disabled here. Ask the administrator.',
    } as Record<string, string>,
  },

  review: {
    title: 'Verdict',
    wholeStudy: 'the whole study',
    group: (what: string) => `Verdict on ${what}`,
    words: { accept: 'Accept', reject: 'Reject …', unsure: 'Not sure', missed: 'Missed …' },
    whole: { accept: 'Agree', reject: 'Disagree', unsure: 'Not sure', missed: 'Missed …' },
    none: 'Nobody has said anything yet.',
    signInFirst: 'Only a radiologist who signed in can give one.',
    why: { reject: 'Why is it not a finding?', missed: 'What was missed?' },
    note: 'Note',
    reasons: {
      artefact: 'Artefact',
      calcification: 'Calcification',
      normal_anatomy: 'Normal anatomy',
      postoperative: 'After surgery',
      old_blood: 'Old blood',
      tumour: 'Tumour',
      wrong_place: 'In the wrong place',
      wrong_size: 'Of the wrong size',
      intraparenchymal: 'Intraparenchymal',
      intraventricular: 'Intraventricular',
      subarachnoid: 'Subarachnoid',
      subdural: 'Subdural',
      epidural: 'Epidural',
      infarct: 'Infarct',
      occlusion: 'Closed artery',
      other: 'Other',
    } as Record<string, string>,
    sentence: (word: 'accept' | 'reject' | 'unsure' | 'missed', finding: string | null) => {
      if (word === 'missed') return 'says that something was missed';
      if (finding === null) {
        return {
          accept: 'agrees with the answer',
          reject: 'disagrees with the answer',
          unsure: 'is not sure',
        }[word];
      }
      return {
        accept: `accepts ${finding}`,
        reject: `rejects ${finding}`,
        unsure: `is not sure of ${finding}`,
      }[word];
    },
    read: (word: 'accept' | 'reject' | 'unsure' | 'missed', reader: string, outdated: boolean) =>
      `${{ accept: 'Agreed', reject: 'Overruled', unsure: 'Not sure', missed: 'Missed' }[word]}: ${reader}${outdated ? ' (before the last revision)' : ''}`,
  },

  trail: {
    open: 'Trail',
    title: 'Audit trail',
    back: 'Study',
    loading: 'Loading the trail …',
    explain:
      'Every act on this study, oldest first. Each row carries a hash over the row before it; “ictus audit verify” recomputes them all, and “ictus audit replay” runs an analysis again.',
    number: 'No.',
    when: 'When',
    who: 'Who',
    what: 'What',
    particulars: 'Particulars',
    hash: 'Hash',
    acts: {
      store: 'stored',
      refuse: 'refused',
      quarantine: 'quarantined',
      complete: 'declared complete',
      analyse: 'analysed',
      fail: 'failed',
      cancel: 'asked to stop',
      cancelled: 'stopped',
      read: 'looked at',
      verdict: 'gave a verdict',
      correct: 'corrected the mask',
      replay: 'replayed',
      remove: 'removed',
      evict: 'evicted to make room',
      export: 'exported to learn from',
      link_followed: 'opened by a signed link',
    } as Record<string, string>,
  },

  draw: {
    title: 'Drawing',
    masks: 'Masks',
    machine: 'The machine’s',
    of: (reader: string) => `By ${reader}`,
    begin: 'Correct the mask',
    brush: 'Brush',
    eraser: 'Eraser',
    smaller: 'Smaller brush',
    larger: 'Larger brush',
    size: (mm: number) => `${mm.toFixed(1)} mm`,
    undo: 'Undo',
    redo: 'Redo',
    save: 'Save',
    leave: 'Leave',
    discard: 'Discard',
    legend: 'Drawn by a reader',
    saved: (volume: string) => `Saved: ${volume}.`,
    loading: 'The mask to begin with is not on the slices yet. Try again in a moment.',
    otherSeries: 'A mask is drawn on a series that was analysed: show one of these first.',
    subject: 'Of what',
  },

  connection: {
    live: 'Live',
    lost: 'Connection lost, trying again',
  },

  state: {
    arriving: 'Arriving',
    analysing: 'Analysing',
    flagged: 'Flagged',
    not_flagged: 'Not flagged',
    uncertain: 'Uncertain',
    failed: 'Failed',
  },

  worklist: {
    title: 'Worklist',
    filter: 'Search',
    filterHint: 'Name, ID, accession or description',
    state: 'State',
    anyState: 'Any state',
    columns: {
      state: 'State',
      patient: 'Patient',
      study: 'Study',
      arrived: 'Arrived',
      findings: 'Findings',
      volume: 'Volume',
      score: 'Score',
      uncertainty: 'Uncertainty',
    },
    count: (shown: number, total: number) =>
      shown === total
        ? plural(total, 'study', 'studies')
        : `${shown} of ${plural(total, 'study', 'studies')}`,
    empty: 'No study has arrived yet. Send one with STOW-RS to /dicom-web/studies.',
    noMatch: 'No study matches the filter.',
    loading: 'Loading the worklist …',
    slices: (done: number, total: number) => `${done} of ${total}`,
    images: (n: number) => plural(n, 'image', 'images'),
    open: (patient: string) => `Open the study of ${patient}`,
    unnamed: 'No name',
    attention: (flagged: number) => (flagged === 0 ? '' : ` · ${flagged} flagged and unread`),
    doubtful: (uncertain: number) => (uncertain === 0 ? '' : ` · ${uncertain} uncertain and unread`),
    left: (seconds: number) =>
      `about ${seconds < 100 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`} left`,
    reading: 'Read or unread',
    readOrNot: 'Read and unread',
    unread: 'Unread',
    readOnly: 'Read',
    order: 'Order',
    byUrgency: 'By urgency',
    byArrival: 'Newest first',
  },

  open: {
    byLink: 'Opened by a link: this study only',
    title: 'Open a study',
    looking: 'Looking for the study …',
    nothing:
      'The link names no study: it must end in ?study= and a StudyInstanceUID, or ?accession= and a number.',
    none: (accession: string) => `No study with the accession number ${accession} has arrived.`,
    several: 'Several studies have this accession number:',
  },

  views: {
    title: 'Saved views',
    none: 'No view',
    save: 'Save view …',
    name: 'Name',
    keep: 'Save',
    forget: (name: string) => `Forget “${name}”`,
  },

  time: {
    now: 'now',
    minutes: (n: number) => `${n} min`,
    hours: (h: number, m: number) => `${h} h ${m} min`,
    days: (n: number) => plural(n, 'day', 'days'),
    seconds: (s: string) => `${s} s`,
  },

  study: {
    back: 'Worklist',
    loading: 'Loading the study …',
    loadingImages: 'Loading the slices …',
    noSeries: 'This study holds no CT series that can be shown.',
    leftOut: (n: number) =>
      `${plural(n, 'image', 'images')} of this series cannot be put in this stack (other orientation or no position) and ${n === 1 ? 'is' : 'are'} not shown.`,
    revised: (revision: number) => `A new result has arrived: revision ${revision}.`,
    superseded: 'A newer result is on its way: this one is superseded.',
    noAnalysis: {
      arriving: 'Images are still arriving. The analysis starts when the series is complete.',
      analysing: 'The analysis is running.',
      failed: 'The analysis failed.',
      other: 'There is no analysis yet.',
    },
    born: (date: string) => `born ${date}`,
    accession: (n: string) => `Accession ${n}`,
    revision: (n: number) => `Revision ${n}`,
  },

  viewer: {
    label: 'Slices. Arrow keys or wheel: move; 1 to 4: window; M: mask; U: uncertainty.',
    toolbar: 'View',
    windows: {
      brain: 'Brain',
      stroke: 'Stroke',
      subdural: 'Subdural',
      bone: 'Bone',
      vessels: 'Vessels',
    },
    window: (width: number, level: number) => `W ${width}  L ${level}`,
    mask: 'Mask',
    uncertainty: 'Uncertainty',
    opacity: 'Opacity',
    fit: 'Fit',
    nextFinding: 'Next finding',
    slice: (n: number, total: number) => `Slice ${n} / ${total}`,
    place: (mm: string) => `${mm} mm`,
    thickness: (mm: string) => `Thickness ${mm} mm`,
    hu: (value: number) => `${value} HU`,
    unreadable: (n: number) => `Slice ${n} could not be loaded.`,
    strip: 'Slices, head on top: findings and doubt',
    stripValue: (n: number, total: number, finding: string, doubt: string | null) =>
      `Slice ${n} of ${total}: findings ${finding} cm²${doubt === null ? '' : `, doubt ${doubt} cm²`}`,
    stripFinding: 'Findings',
    stripDoubt: 'Doubt',
    map: (quantity: string, question: string) => `${quantity}: ${question}`,
    maps: 'Map',
    nextMap: 'Next map',
    /** What a map shows. */
    quantity: {
      entropy: 'Uncertainty',
      score: 'Score',
      mutual_information: 'Disagreement of the networks',
      variance: 'Variance of the score',
    },
    /** What 0 and 1 mean. */
    ends: {
      entropy: ['0 · the networks agree', '1 · they cannot decide'],
      score: ['0 · nothing', '1 · surely something'],
      mutual_information: ['0 · all say the same', '1 · each says another'],
      variance: ['0 · all say the same', '1'],
    },
    mapNote: {
      entropy: 'Entropy of the ensemble. Below 0.05 nothing is drawn.',
      score: 'Mean of the networks, not calibrated. Below 0.05 nothing is drawn.',
      mutual_information: 'Mutual information of label and network. Below 0.05 nothing is drawn.',
      variance: 'Of the networks’ scores. Below 0.05 nothing is drawn.',
    },
    loadingMap: 'The map is being loaded…',
    contours: 'Contours',
    contourNote: (outer: number, inner: number) =>
      `Score ${outer} (dashed) and ${inner} (whole line), not calibrated`,
    noMap: 'No uncertainty map',
    noMask: 'No mask',
  },

  figures: {
    open: 'Figures',
    title: 'The machine and its readers',
    loading: 'Loading the figures…',
    explain:
      'What readers here said of the machine’s answers: agreement, not accuracy, since nobody checked the readers. The latest verdict of each reader on an answer counts, and answers on which readers are not of one mind stand by themselves. A finding without a verdict of its own has that of its answer. What nobody read is counted nowhere. Intervals are Wilson’s, 95 %.',
    from: 'From',
    to: 'to',
    read: (read: number, answered: number) =>
      `${read} of ${plural(answered, 'study', 'studies')} with an answer ${read === 1 ? 'is' : 'are'} read.`,
    none: 'Nothing was read in these days.',
    answers: 'Answers',
    findings: 'Findings',
    reasons: 'Reasons against findings',
    weeks: 'Answers read by week',
    week: 'Week of',
    models: 'Models',
    model: 'Model',
    given: 'Answer',
    kind: 'Finding',
    reason: 'Reason',
    outcome: 'Readers said',
    count: 'Number',
    share: 'Share',
    corrected: 'Mask drawn',
    edited: 'Mask edited',
    interval: (low: string, high: string, of: number) => `(${low} to ${high}; n = ${of})`,
    bar: (name: string, outcome: string, count: number) => `${name}, ${outcome}: ${count}`,
    answer: {
      present: 'Present',
      absent: 'Absent',
      uncertain: 'Uncertain',
      not_evaluated: 'Not evaluated',
    } as Record<string, string>,
    outcomes: {
      accept: 'confirmed',
      reject: 'overruled',
      missed: 'something missed',
      unsure: 'not sure',
      differ: 'readers differ',
    } as Record<string, string>,
    cases: (about: string) => `Cases: ${about}`,
    noCase: 'No case.',
    close: 'Close the list',
    study: 'Study',
    date: 'Date',
    description: 'Description',
    judged: 'Judged',
    state: 'State',
    score: 'Score',
    uncertainty: 'Uncertainty',
    next: {
      title: 'What to label next',
      explain:
        'Studies that nobody has read, whose labels would teach a network most: worth is the mean of how much the networks disagree and of how near the score is to one half. Lanes take turns.',
      none: 'Every answered study is read.',
      worth: 'Worth',
    },
  },

  presence: {
    label: 'Others on this study',
    here: (name: string, since: string, drawing: boolean) =>
      `${name} has this study open since ${since}${drawing ? ' and is drawing a mask' : ''}.`,
    row: (names: readonly string[]) => `Open with ${names.join(', ')}`,
    said: (name: string) => `${name} gave a verdict meanwhile.`,
    drew: (name: string) => `${name} saved a mask meanwhile; it is in the list of masks.`,
  },

  compare: {
    name: 'Compare',
    label: 'Another study of the patient',
    which: 'Study beside this one',
    note: 'Not registered: matched by the distance from the uppermost slice. Scroll or ↑ ↓ here to shift.',
    below: (mm: string) => `${mm} mm below the uppermost`,
    up: 'Shift towards the head',
    down: 'Shift towards the feet',
    reset: (mm: string) => `Shifted by ${mm} mm: match again`,
  },

  placement: {
    refused: (name: string, why: string) => `${name} is not drawn: ${why}`,
    elsewhere: (name: string, frames: number, all: boolean) =>
      all
        ? `${name} belongs to another series and is not drawn here.`
        : `${name}: ${plural(frames, 'frame', 'frames')} of it belong${frames === 1 ? 's' : ''} to images that are not shown here.`,
    notDicom: 'the object cannot be read as DICOM.',
    transferSyntax:
      'the server sent another transfer syntax than those asked for (Explicit VR Little Endian, RLE Lossless).',
    frameCount: (count: number, found: number) => `it says ${count} frames and describes ${found}.`,
    sources: (frame: number, found: number) =>
      `frame ${frame} references ${found} source images; exactly one was expected.`,
    differs: (frame: number, what: string) =>
      `frame ${frame} has another ${what} than the image that it references.`,
    size: 'number of rows or columns',
    orientation: 'orientation',
    position: 'position',
    spacing: 'pixel spacing',
    frameOfReference: 'frame of reference',
    twice: (frame: number) => `frame ${frame} repeats an image that already has one.`,
    segment: (frame: number) => `frame ${frame} names no segment.`,
    unknown: (segment: number) => `segment ${segment} is the mask of no finding of the report.`,
    mapping: (frame: number) => `frame ${frame} has no linear real-world value mapping.`,
    compressed: (frame: number) => `frame ${frame} cannot be decompressed.`,
    notBinary: 'it is not a binary segmentation with one bit a pixel.',
    notMap: 'it is not a parametric map of 16-bit or float pixels.',
    short: 'its pixel data are shorter than its frames.',
  },

  panel: {
    label: 'Results',
    answers: 'Answers',
    answer: {
      present: 'Flagged',
      absent: 'Not flagged',
      uncertain: 'Uncertain',
      not_evaluated: 'Not evaluated',
    },
    findings: 'Findings',
    none: 'Nothing was marked.',
    noneNote: 'This does not rule anything out.',
    notEvaluated: 'Nothing was evaluated.',
    volume: 'Volume',
    side: 'Side',
    score: 'Score',
    uncertainty: 'Uncertainty',
    interval: 'Volume between',
    between: (low: string, high: string) => `${low} and ${high}`,
    keySlice: (n: number) => String(n),
    keySliceLabel: 'Key slice',
    otherSeries: 'in another series',
    noSlice: 'not in this series',
    notCalibrated: 'not calibrated',
    probability: 'Probability',
    calibratedOn: (cases: string) => `Calibrated on ${cases}.`,
    midlineShift: 'Midline shift',
    midlineUnknown: 'not measured',
    midlineTo: (mm: string, side: string) => `${mm} mm ${side}`,
    midlineMiddle: (mm: string) => `${mm} mm`,
    midlineBetween: (from: string, to: string) => `${from} to ${to}`,
    scoreNote: 'Scores run from 0 to 1 and are not calibrated.',
    sides: {
      left: 'left',
      right: 'right',
      midline: 'midline',
      bilateral: 'both sides',
      unknown: 'not known',
    },
    warnings: 'Warnings and refusals',
    refusal: 'Refused',
    warning: 'Warning',
    overlay: 'Not drawn',
    series: 'Series',
    chosen: 'analysed',
    notChosen: 'not analysed',
    shown: 'shown',
    show: 'Show',
    models: 'Models',
    weights: 'Weights',
    version: 'Version',
    mode: 'Numeric mode',
    timings: 'Time',
    waited: 'waited',
    total: 'analysis',
    inference: 'inference',
    stages: {
      assemble: 'assemble',
      preprocess: 'preprocess',
      infer: 'infer',
      uncertainty: 'uncertainty',
      postprocess: 'postprocess',
      encode: 'encode',
    } as Record<string, string>,
    made: (when: string) => `Made ${when}`,
    jump: (id: string, slice: number) => `${id}: go to slice ${slice}`,
  },

  planes: {
    name: 'Planes',
    label: 'Three planes through one point',
    names: { axial: 'Axial', coronal: 'Coronal', sagittal: 'Sagittal' },
    axes: {
      axial:
        'Axial plane. Arrow keys or wheel: move; click: set the point; Ctrl and wheel: zoom; Shift and drag: pan.',
      coronal: 'Coronal plane. Arrow keys or wheel: move; click: set the point.',
      sagittal: 'Sagittal plane. Arrow keys or wheel: move; click: set the point.',
    },
    loading: (n: number, all: number) => `Loading slice ${n} of ${all}…`,
    incomplete: (why: string) => `Planes need every slice, and one could not be loaded: ${why}`,
    few: 'Planes need at least two slices over one another.',
    slab: 'Brightest of',
    thin: 'the plane',
    mm: (mm: number) => `${mm} mm`,
    place: (x: string, y: string, z: string) => `${x}  ${y}  ${z} mm`,
    nothing: 'no slice here',
    note: (n: number) =>
      `Interpolated from ${n} original slices, each in its own place, for display only: measure and draw on the slices (V).`,
    gaps: (n: number) =>
      `${plural(n, 'step', 'steps')} between slices ${n === 1 ? 'is' : 'are'} too wide to be bridged and ${n === 1 ? 'stays' : 'stay'} empty.`,
  },

  kinds: {
    haemorrhage: 'Haemorrhage',
    intraparenchymal_haemorrhage: 'Intraparenchymal haemorrhage',
    intraventricular_haemorrhage: 'Intraventricular haemorrhage',
    subarachnoid_haemorrhage: 'Subarachnoid haemorrhage',
    subdural_haemorrhage: 'Subdural haemorrhage',
    epidural_haemorrhage: 'Epidural haemorrhage',
    infarct: 'Infarct',
    occlusion: 'Vessel occlusion',
    ica_terminus_occlusion: 'Occlusion of the ICA terminus',
    m1_occlusion: 'Occlusion of M1',
    m2_occlusion: 'Occlusion of M2',
    basilar_occlusion: 'Occlusion of the basilar artery',
  } as Record<string, string>,

  edit: {
    tools: { brush: 'Brush', eraser: 'Eraser', lasso: 'Lasso', cut: 'Cut out', grow: 'Region' },
    hints: {
      brush: 'Paint with a round tip',
      eraser: 'Take away with a round tip',
      lasso: 'Draw around what belongs to the mask',
      cut: 'Draw around what does not belong to the mask',
      grow: 'Click into a region, or draw a box around it: its edge is found by density on this slice',
      between: 'Fill the empty slices between drawn ones',
    },
    only: 'Paint only',
    low: 'Paint only above, HU',
    high: 'Paint only below, HU',
    between: 'Between',
    refused: {
      outside: 'Nothing was set: this is bone, air or outside the head. Point at soft tissue.',
      no_edge:
        'Nothing was set: no edge was found here, its density is too near to what surrounds it. Draw a box around it, or use the brush.',
      ran_out:
        'Nothing was set: the region has no edge that holds it. Draw a box around it, or use the brush.',
      nothing_between: 'Nothing was set: there is no empty slice between two that are drawn on.',
      off_the_way:
        'Nothing was set: the slices between lie beside the line between the drawn ones. Draw on them.',
    },
    waits: 'A mask that you drew here was never saved. D goes on with it.',
  },

  measure: {
    title: 'Measurements',
    notSaved: 'Not saved: they are gone when the study is closed.',
    kinds: { length: 'Length', angle: 'Angle', ellipse: 'Ellipse' },
    hints: {
      length: 'From one point to another on this slice, mm',
      angle: 'Between two lines on this slice: an end, the corner, the other end',
      ellipse: 'Density within an ellipse on this slice: drag from one corner of its box to the other',
    },
    millimetres: (mm: number) => `${mm.toFixed(1)} mm`,
    degrees: (degrees: number) => `${degrees.toFixed(1)}°`,
    density: (d: { mean: number; deviation: number; min: number; max: number; areaMm2: number }) =>
      `${d.mean.toFixed(1)} ± ${d.deviation.toFixed(1)} HU (${Math.round(d.min)} to ${Math.round(d.max)}), ${d.areaMm2.toFixed(0)} mm²`,
    named: (id: number, kind: string, what: string, slice: number) =>
      `${id} · ${kind}: ${what} · slice ${slice}`,
    remove: (id: number, kind: string) => `Remove ${kind.toLowerCase()} ${id}`,
  },

  outbox: {
    waits: (n: number) =>
      `${plural(n, 'verdict is', 'verdicts are')} kept in this browser until the server can be reached.`,
    refused: (why: string) => `A verdict that was kept was refused: ${why}`,
    overtaken: 'somebody has given another one since.',
    look: 'Look at the study',
    forget: 'Forget it',
  },

  help: {
    open: 'Keys',
    title: 'Keys',
    close: 'Close',
    worklist: [
      ['J or ↓', 'next study'],
      ['K or ↑', 'previous study'],
      ['Enter', 'open the study'],
      ['/', 'search'],
      ['U', 'only what nobody has read, or all'],
      ['?', 'this list'],
    ],
    study: [
      ['↑ ↓ or wheel', 'move towards the head, the feet'],
      ['Page ↑ ↓', 'move by five slices'],
      ['Home, End', 'uppermost, lowest slice'],
      ['1 2 3 4 5', 'window: brain, stroke, subdural, bone, vessels'],
      ['M', 'mask on or off'],
      ['U', 'uncertainty on or off'],
      ['H', 'the next map, where the analysis has several'],
      ['C', 'contours of the score, where the analysis has its map'],
      ['N', 'next finding'],
      ['V', 'axial, coronal and sagittal planes through one point, or the slices'],
      ['P', 'another study of the patient beside this one, where there is one'],
      ['A, X, S', 'accept, reject, not sure: of the chosen finding, else of the answer'],
      ['W', 'something was missed'],
      ['Enter', 'agree with the answer, and on to the next study that nobody has read'],
      [
        'D',
        'correct the mask; then B brush, E eraser, L lasso, K cut out, G region by a click or a box, T only densities between the two numbers, [ ] size, I fill between slices, Z undo, Y redo, Enter save, Esc leave',
      ],
      [
        'L, G, O',
        'measure length, angle, density in an ellipse; then drag or click, or arrows and Enter; Delete removes, Esc ends',
      ],
      ['0', 'fit the image'],
      ['Drag', 'window; with Ctrl or the right button zoom; with Shift or the middle button pan'],
      ['Esc', 'back to the worklist'],
      ['?', 'this list'],
    ],
  },
} as const;
