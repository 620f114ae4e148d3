// The first page of a tenant's own login: what the operators have given it, and its own names for models.

import { useLoaded } from "../context";
import { count, plural, seconds, words } from "../format";
import { ACTIONS, Empty, Table, Title, Trouble } from "../parts";
import { link } from "../route";
import type { TenantAnswer, TenantList } from "../types";
import { Aliases } from "./aliases";

export function OwnTenant({ name }: { name: string }) {
  const { data, error, reload } = useLoaded((api, signal) => api.get<TenantList>("/tenants", signal), 60_000);
  const tenant = data?.data[0];
  return (
    <>
      <Title text={name}>{tenant && <span class="muted">{plural(Object.keys(tenant.models).length, "model")} given by the operators</span>}</Title>
      {error && <Trouble text={error} retry={reload} />}
      {tenant && (
        <>
          <section aria-labelledby="models-title">
            <h2 id="models-title">
              Models <small>besides the adapters of its own</small>
            </h2>
            <OwnModels tenant={tenant} />
          </section>
          <Aliases tenant={name} />
          <Caps tenant={tenant} />
        </>
      )}
    </>
  );
}

function OwnModels({ tenant }: { tenant: TenantAnswer }) {
  const models = Object.entries(tenant.models);
  if (models.length === 0) return <Empty>The operators have given it none.</Empty>;
  return (
    <Table label="Models" columns={["Model", "Adapter or base model", "Default", ACTIONS]}>
      {models.map(([alias, meant]) => (
        <tr key={alias}>
          <th scope="row">{alias}</th>
          <td>{meant}</td>
          <td>{alias === tenant.default_model ? "where a request names none" : ""}</td>
          <td>
            <a href={link("playground", alias)}>Try it</a>
          </td>
        </tr>
      ))}
    </Table>
  );
}

function Caps({ tenant }: { tenant: TenantAnswer }) {
  return (
    <section aria-labelledby="caps-title">
      <h2 id="caps-title">
        Caps <small>set by the operators</small>
      </h2>
      <dl class="facts wide">
        {Object.entries(tenant.caps).map(([cap, limit]) => (
          <div key={cap}>
            <dt>{words(cap.replace(/_s$/, ""))}</dt>
            <dd>{limit === null ? <span class="muted">none</span> : cap.endsWith("_s") ? seconds(limit) : count(limit)}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
