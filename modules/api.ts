/** What `import … from "starling/modules"` gives a module author; the one file of re-exports, because it is a public door. */
export { BaseModule, type ModuleConfig, type PlatformConfig } from "./base-module.ts";
export type { ActorAddress, Behaviour, MessageAnswer, MessageContext, Send } from "./behaviour.ts";
export type { DataPointTask, Datapoint, DerivedTask, Eid, Value } from "./datapoint.ts";
export type {
  AllowEntityCreationHook,
  EntityCreationHook,
  HookAnswer,
  HookContext,
  HookOptions,
  LatestValue,
  ModuleLog,
  NewAttrHook,
  RecordView,
  RefreshFlag,
  RefreshOptions,
  TaskHook,
} from "./hook.ts";
export type { AttributeSpec, EntitySpec, Model } from "./model.ts";
export type { ModuleActors, SendOptions } from "./module-actors.ts";
export type { CallbackRegistrar } from "./registrar.ts";
export type { CatchUp, Cron, CronFields, ScheduleCallback, ScheduleOptions, ScheduleRun } from "./schedule.ts";
export type {
  AttributePaths,
  CorrelationHook,
  CorrelationHookWithMasterRecord,
  CorrelationOptions,
  HistoryPoint,
  LinkedValue,
  MasterRecord,
  MasterValue,
  PureOptions,
  SnapshotContext,
  SnapshotFinalizeHook,
  SnapshotInitHook,
  SnapshotValue,
  SnapshotValues,
  TimeseriesHook,
} from "./snapshot-hook.ts";
